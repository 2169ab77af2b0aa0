"""OpenVPN's wire protocol, sans I/O: packets, keys, the session machine, and senders without a session."""
