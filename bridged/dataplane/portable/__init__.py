"""portable: see ARCHITECTURE.md, "The house"."""
