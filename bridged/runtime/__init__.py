"""runtime: see ARCHITECTURE.md, "The house"."""
