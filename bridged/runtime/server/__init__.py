"""The server role: admits clients and keeps one session for each."""
