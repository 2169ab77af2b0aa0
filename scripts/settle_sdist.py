"""Writes an sdist anew, so that the same files give the same bytes: names in order, one date, no owner.

Usage: settle_sdist.py SDIST. The date is SOURCE_DATE_EPOCH, in seconds since 1970.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from pathlib import Path


def settle(sdist: bytes, epoch: int) -> bytes:
    """The same files as a gzip-compressed tar archive that depends on nothing else."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            if member.isfile():
                plain = tarfile.TarInfo(member.name)
                plain.size, plain.mtime = member.size, epoch
                plain.mode = 0o755 if member.mode & 0o100 else 0o644
                target.addfile(plain, source.extractfile(member))
    return packed.getvalue()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_bytes(settle(path.read_bytes(), int(os.environ["SOURCE_DATE_EPOCH"])))
