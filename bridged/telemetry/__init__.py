"""Metrics (a collector over snapshots, an HTTP server) and structured logs."""

from __future__ import annotations

from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.logs import configure_logs
from bridged.telemetry.loop_calls import call_in_loop
from bridged.telemetry.server import MetricsServer, MetricsServerError, read_bearer_token

__all__ = [
    "DaemonCollector",
    "MetricsServer",
    "MetricsServerError",
    "build_registry",
    "call_in_loop",
    "configure_logs",
    "read_bearer_token",
]
