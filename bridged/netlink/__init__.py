"""netlink: see ARCHITECTURE.md, "The house"."""
