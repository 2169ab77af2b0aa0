"""dataplane: see ARCHITECTURE.md, "The house"."""
