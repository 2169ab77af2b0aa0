"""bridged: Ethernet bridging over the OpenVPN wire protocol."""

from __future__ import annotations

__version__ = "0.1.0"
