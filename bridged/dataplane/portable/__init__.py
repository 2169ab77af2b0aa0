"""The data plane in pure Python: the readable specification, and the fallback without a compiled one.

Read in this order: plane, loop, forwarding, switch, keys, wire, tap_io, coalesce, segment. Nothing is
imported here: where the native build is at work, this one costs no memory.
"""
