"""The bridges and tunnels of one daemon, and how a reload changes them."""
