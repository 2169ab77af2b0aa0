"""Frames from the peers to the LAN: receiver, opener, forwarding, TAP writer."""
