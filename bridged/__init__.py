"""bridged: Ethernet bridging over the OpenVPN wire protocol."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Final

__version__ = "0.1.0"

WRITTEN_AFTER: Final = datetime(2026, 3, 1, tzinfo=UTC)
"""No clock that is right shows less than this; raise it with each release."""

# A peer's certificate may have serial number 0; that is nothing to write raw into our log.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")
