"""How a server treats senders that have no session yet: cookies, limits, and hints about mistakes."""
