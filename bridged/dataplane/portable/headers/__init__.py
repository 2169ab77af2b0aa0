"""Pure header work: what the octets of a frame say, and how super-frames are cut and joined."""
