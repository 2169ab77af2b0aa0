"""Takes PEM blocks out of a text, without what surrounds them and without blocks of other kinds.

Files from other tools have "Bag Attributes" above a block, in any character set, and NULs after it.
Pure.
"""

from __future__ import annotations

from typing import Final

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_DASHES: Final = b"-----"

CERTIFICATES: Final = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
PRIVATE_KEYS: Final = (b"PRIVATE KEY",)
STATIC_KEYS: Final = (b"OpenVPN Static key V1",)
REVOCATION_LISTS: Final = (b"X509 CRL",)


def pem_blocks(content: bytes, labels: tuple[bytes, ...] = (b"",)) -> bytes:
    """All complete blocks whose label ends with one of `labels`, in their order; empty if there is none."""
    found: list[bytes] = []
    label: bytes | None = None
    lines: list[bytes] = []
    for raw in content.split(b"\n"):
        line = raw.partition(b"\0")[0].strip()
        if line.startswith(_BEGIN) and line.endswith(_DASHES):
            label, lines = line[len(_BEGIN) : -len(_DASHES)], [line]
        elif label is not None:
            lines.append(line)
            if line.startswith(_END):
                if line == _END + label + _DASHES and label.endswith(labels):
                    found.append(b"\n".join(lines) + b"\n")
                label = None
    return b"".join(found)
