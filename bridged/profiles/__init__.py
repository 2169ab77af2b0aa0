"""profiles: see ARCHITECTURE.md, "The house"."""
