"""Writes what watches bridged: Prometheus' rules and their unit tests, Grafana's dashboards."""
