"""Frames from the LAN to the peers: reader, forwarding, peer batches, batch sealer."""
