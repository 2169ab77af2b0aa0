"""The admin API on a Unix socket (`server`), what it asks of the daemon (`state`), and its `client`.

Nothing is imported here: the client must not load the server's libraries.
"""
