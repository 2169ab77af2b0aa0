"""The waiting end of a link with a static key."""
