"""The commands. See ARCHITECTURE.md, "The house"."""
