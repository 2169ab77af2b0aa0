"""cli: see ARCHITECTURE.md, "The house"."""
