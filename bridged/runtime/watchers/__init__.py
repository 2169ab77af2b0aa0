"""What watches the host and the clock, and tells the tunnels."""
