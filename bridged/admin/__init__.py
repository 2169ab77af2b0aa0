"""The admin API on a Unix socket: `server`, the daemon behind it (`state`), and the `client`.

Imports nothing: the client must not load the server's libraries.
"""
