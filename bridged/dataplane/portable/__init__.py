"""The data plane in pure Python: the readable specification, and the fallback without a compiled one.

Read in this order: plane, loop, forwarding, switch, keys, wire, tap_io, coalesce, segment.
"""

from bridged.dataplane.portable.plane import PortableDataPlane

__all__ = ["PortableDataPlane"]
