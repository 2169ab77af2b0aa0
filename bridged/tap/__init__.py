"""tap: see ARCHITECTURE.md, "The house"."""
