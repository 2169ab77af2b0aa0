"""Watch the host and the clock, and notify the tunnels."""
