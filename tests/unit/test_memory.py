"""What a daemon gives back after its start, and what it loads of a library."""

from __future__ import annotations

import subprocess
import sys

from bridged.memory import clean_mappings

CODE = "7f0000000000-7f0000100000 r-xp 00000000 fe:00 1234 /usr/lib/libexample.so"
READ = "7f0000200000-7f0000201000 r--p 00100000 fe:00 1234 /usr/lib/libexample.so"


def smaps(head: str, anonymous: int) -> bytes:
    return f"{head}\nSize: 4 kB\nRss: 4 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n".encode()


def test_only_what_a_file_still_has_is_given_back() -> None:
    given = smaps(CODE, 0) + smaps(READ, 0)
    kept = [
        smaps(READ, 4),  # relocations were written into it before it was made read-only
        smaps(READ.replace("r--p", "rw-p"), 0),
        smaps(READ.replace("r--p", "r--s"), 0),
        smaps("7f0000400000-7f0000500000 r--p 00000000 00:00 0 ", 0),
        smaps(READ, 0).replace(
            b"Rss: 4 kB", b"Rss: 0 kB"
        ),  # as an emulator says of all, also of what was written
        smaps("7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]", 0),
    ]
    expected = [(0x7F0000000000, 0x100000), (0x7F0000200000, 0x1000)]
    assert list(clean_mappings(given + b"".join(kept), f"{CODE}\n".encode())) == expected
    assert list(clean_mappings(b"".join(kept) + given, f"{READ}\n".encode())) == expected


def test_nothing_is_given_back_where_an_emulator_translates_addresses_in_one_of_the_two_files_only() -> None:
    mappings = smaps(CODE, 0) + smaps(READ, 0)
    assert list(clean_mappings(mappings, f"{CODE}\n{READ}\n".encode()))
    translated = CODE.replace("7f0000000000-7f0000100000", "10000-110000")
    assert not list(clean_mappings(mappings, f"{translated}\n{READ}\n".encode()))


def test_code_that_was_given_back_runs_again() -> None:
    code = (
        "import re, zlib\n"
        "from bridged.memory import give_back_start\n"
        "def resident():\n"
        "    return int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "import cryptography.x509, pydantic\n"
        "before = resident()\n"
        "give_back_start()\n"
        "assert resident() < before - 2048, (before, resident())\n"
        "assert zlib.decompress(zlib.compress(b'still here')) == b'still here'\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_whoever_uses_the_whole_of_pyroute2_in_a_process_of_ours_gets_it() -> None:
    code = (
        "import sys\n"
        "import bridged.netlink\n"
        "assert 'pyroute2.ndb' not in sys.modules\n"
        "import pyroute2\n"
        "assert not hasattr(pyroute2, '__no_such__')\n"
        "from pyroute2 import IPRoute\n"
        "assert pyroute2.IPRoute is IPRoute and 'pyroute2.ndb' in sys.modules\n"
        "from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg\n"
        "import bridged.netlink.observe as observe\n"
        "assert observe.ifinfmsg is ifinfmsg\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    other_way_round = "from pyroute2 import IPRoute\nimport bridged.netlink\nIPRoute.__name__\n"
    subprocess.run([sys.executable, "-c", other_way_round], timeout=60, check=True)
