"""configuration: see ARCHITECTURE.md, "The house"."""
