"""switching: see ARCHITECTURE.md, "The house"."""
