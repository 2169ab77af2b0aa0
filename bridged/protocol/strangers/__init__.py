"""What a server knows before a session exists."""
