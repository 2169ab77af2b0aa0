"""tls: see ARCHITECTURE.md, "The house"."""
