"""pki: see ARCHITECTURE.md, "The house"."""
