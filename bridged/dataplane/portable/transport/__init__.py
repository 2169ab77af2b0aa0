"""The path to a peer: sockets, addresses, the pinned source, and what errno means."""
