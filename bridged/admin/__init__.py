"""admin: see ARCHITECTURE.md, "The house"."""
