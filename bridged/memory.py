"""What a running daemon need not keep in memory: what only its start has used.

Half of the memory after the start is code of libraries and what their set-up left; most of it is never used
again. Given back, it costs nothing until it is used: code is read again from the page cache.

Source: madvise(2), malloc_trim(3), proc(5) (smaps), PR_SET_THP_DISABLE(2const).
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_SMAPS: Final = Path("/proc/self/smaps")
_MAPS: Final = Path("/proc/self/maps")
_MADV_DONTNEED: Final = 4
_PR_SET_THP_DISABLE: Final = 41
_MAPPING: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (r-[x-]p) \S+ \S+ (\d+) +/")
_ANONYMOUS: Final = re.compile(rb"Anonymous: +(\d+) kB")
_RESIDENT: Final = re.compile(rb"Rss: +(\d+) kB")
GARBAGE_THRESHOLDS: Final = (700, 5, 2)
"""Thresholds of the three generations; see `keep_collections_small`."""


def use_small_pages() -> None:
    """Keep the kernel from backing memory of this process with huge pages, as Debian's does by default.

    A huge page is resident as a whole: the reserves of the allocators of all threads would count, too.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def keep_collections_small() -> None:
    """Exclude the modules from garbage collection, and make full collections more frequent.

    Ended TLS sessions are cycles. By default a full collection needs 70,000 more objects, and a quarter as
    many new ones as there were at the last one. With the modules counted, sessions would pile up for hours,
    and each collection would traverse the modules, too. Source: docs.python.org, gc.set_threshold; CPython
    3.11, Modules/gcmodule.c, `long_lived_pending`.
    """
    gc.collect()
    gc.freeze()
    gc.collect()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def give_back_start() -> None:
    """Collect garbage, return what the allocator holds in reserve, and unmap code that was only read.

    Any thread may run meanwhile. Does nothing where the system has no such calls.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):
        libc.malloc_trim(0)
    with suppress(AttributeError, OSError):
        for start, octets in clean_mappings(_SMAPS.read_bytes(), _MAPS.read_bytes()):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(octets), _MADV_DONTNEED)


def clean_mappings(smaps: bytes, maps: bytes) -> Iterator[tuple[int, int]]:
    """(address, bytes) of what is mapped from files and was never written to: the files still have it.

    Nothing where the two files begin with different mappings: qemu-user translates addresses in maps only.
    Where it answers for smaps, too, it says that nothing is in memory: such mappings are left alone.
    """
    if smaps.partition(b"\n")[0] != maps.partition(b"\n")[0]:
        return
    found: re.Match[bytes] | None = None
    for line in smaps.splitlines():
        if b"-" in line.partition(b" ")[0]:
            found = _MAPPING.match(line)
        elif (resident := _RESIDENT.match(line)) and int(resident[1]) == 0:
            found = None
        elif found is not None and (anonymous := _ANONYMOUS.match(line)):
            if int(anonymous[1]) == 0 and int(found[4]) != 0:
                start = int(found[1], 16)
                yield start, int(found[2], 16) - start
            found = None
