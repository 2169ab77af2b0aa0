"""Pure header work: what the bytes of a frame say, and how super-frames are cut and joined."""
