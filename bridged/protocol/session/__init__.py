"""The session machine: one session with one peer, sans I/O."""
