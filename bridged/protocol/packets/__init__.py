"""What travels: packets, wraps and the messages inside them."""
