"""protocol: see ARCHITECTURE.md, "The house"."""
