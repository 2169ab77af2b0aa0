"""Frames from the peers to the LAN: receiver, opener, deliver, TAP writer."""
