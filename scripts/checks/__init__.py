"""House rules that no ready-made tool checks. `python -m scripts.checks` runs all, as `make lint` does."""
