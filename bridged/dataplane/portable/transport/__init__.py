"""The path to a peer: sockets, control messages, the pinned source, and what errno means."""
