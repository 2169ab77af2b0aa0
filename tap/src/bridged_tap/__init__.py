"""TAP and TUN adapters on Linux: open, create, offloads, several queues, MAC addresses, adapter lock.

Begin with `open_tap` or `open_tun`. Import from here: what stands in the modules and not in `__all__` may
change. Needs nothing but Python 3.11 and Linux 4.20 or later.
"""

from bridged_tap.adapter import Adapter, TapAdapter, TunAdapter
from bridged_tap.addresses import MacAddress
from bridged_tap.errors import ERROR_CODES, AdapterLockedError, TapError, TapSettingsError
from bridged_tap.inventory import AdapterInfo, adapter_info, list_adapters
from bridged_tap.kernel import check_device
from bridged_tap.links import address_owners, kernel_addresses
from bridged_tap.lock import AdapterLock, Holder, find_holder, find_lock_holder, lock_adapter
from bridged_tap.mac import (
    MacMode,
    MacPolicy,
    choose_mac,
    collision_probability,
    derive_mac,
    draw_mac,
    load_mac,
    store_mac,
)
from bridged_tap.opening import create_tap, create_tun, delete_adapter, inherit_tap, open_tap, open_tun
from bridged_tap.queue import Queue
from bridged_tap.reading import FRAME_SIZE, FrameReader
from bridged_tap.settings import TXQUEUELEN_DEFAULT, Mode, Offload
from bridged_tap.virtio import Segmentation, VirtioHeader

__version__ = "0.1.0"

__all__ = [
    "ERROR_CODES",
    "FRAME_SIZE",
    "TXQUEUELEN_DEFAULT",
    "Adapter",
    "AdapterInfo",
    "AdapterLock",
    "AdapterLockedError",
    "FrameReader",
    "Holder",
    "MacAddress",
    "MacMode",
    "MacPolicy",
    "Mode",
    "Offload",
    "Queue",
    "Segmentation",
    "TapAdapter",
    "TapError",
    "TapSettingsError",
    "TunAdapter",
    "VirtioHeader",
    "adapter_info",
    "address_owners",
    "check_device",
    "choose_mac",
    "collision_probability",
    "create_tap",
    "create_tun",
    "delete_adapter",
    "derive_mac",
    "draw_mac",
    "find_holder",
    "find_lock_holder",
    "inherit_tap",
    "kernel_addresses",
    "list_adapters",
    "load_mac",
    "lock_adapter",
    "open_tap",
    "open_tun",
    "store_mac",
]
