"""TAP adapters for any program: open, create, attach, offloads, random MAC, adapter lock.

Stands alone: imports nothing of bridged but its errors and addresses. Linux 4.20 or later.
See tap/README.md; begin with `open_tap`.
"""

from bridged.addresses import MacAddress
from bridged.errors import AdapterLockedError, TapError
from bridged_tap.adapter import FRAME_OCTETS, TapAdapter
from bridged_tap.inventory import TapInfo, list_taps, show_tap
from bridged_tap.links import address_owners, kernel_addresses
from bridged_tap.lock import AdapterLock, Holder, find_holder, lock_adapter
from bridged_tap.mac import MacMode, MacPolicy, choose_mac, collision_probability, derive_mac, draw_mac
from bridged_tap.opening import create_tap, delete_tap, open_tap
from bridged_tap.settings import Offload, TapSettings

__version__ = "0.1.0"

__all__ = [
    "FRAME_OCTETS",
    "AdapterLock",
    "AdapterLockedError",
    "Holder",
    "MacAddress",
    "MacMode",
    "MacPolicy",
    "Offload",
    "TapAdapter",
    "TapError",
    "TapInfo",
    "TapSettings",
    "address_owners",
    "choose_mac",
    "collision_probability",
    "create_tap",
    "delete_tap",
    "derive_mac",
    "draw_mac",
    "find_holder",
    "kernel_addresses",
    "list_taps",
    "lock_adapter",
    "open_tap",
    "show_tap",
]
