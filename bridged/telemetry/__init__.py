"""telemetry: see ARCHITECTURE.md, "The house"."""
