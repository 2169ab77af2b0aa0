"""Takes PEM blocks out of a text, without what surrounds them and without blocks of other kinds.

Files from other tools have "Bag Attributes" above a block, in any character set, NULs after it, and blocks
without a line feed between them.
Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_DASHES: Final = b"-----"
_TRUSTED: Final = b"TRUSTED CERTIFICATE"
_JOINED: Final = re.compile(rb"(-----END [^\n-]{1,64}-----)[ \t\r]*(?=-----BEGIN )")
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")

CERTIFICATES: Final = (b"CERTIFICATE", b"X509 CERTIFICATE", _TRUSTED)
PRIVATE_KEYS: Final = (b"PRIVATE KEY",)
STATIC_KEYS: Final = (b"OpenVPN Static key V1",)
WRAP_KEYS: Final = (b"OpenVPN tls-crypt-v2 client key", b"OpenVPN tls-crypt-v2 server key")
REVOCATION_LISTS: Final = (b"X509 CRL",)


def pem_blocks(content: bytes, labels: tuple[bytes, ...] = (b"",)) -> bytes:
    """All complete blocks whose label ends with one of `labels`, in their order; empty if there is none.

    OpenSSL's TRUSTED CERTIFICATE becomes the certificate in it.
    """
    found: list[bytes] = []
    label: bytes | None = None
    lines: list[bytes] = []
    for raw in _JOINED.sub(rb"\1\n", _as_utf8(content)).split(b"\n"):
        line = raw.partition(b"\0")[0].strip()
        if line.startswith(_BEGIN) and line.endswith(_DASHES):
            label, lines = line[len(_BEGIN) : -len(_DASHES)], [line]
        elif label is not None:
            lines.append(line)
            if line.startswith(_END):
                if line == _END + label + _DASHES and label.endswith(labels):
                    found.append(_plain(lines) if label == _TRUSTED else b"\n".join(lines) + b"\n")
                label = None
    return b"".join(found)


def _as_utf8(content: bytes) -> bytes:
    """Without the mark of UTF-8 and UTF-16, which editors of Windows write."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def is_encrypted(content: bytes) -> bool:
    """Whether it has a private key that needs a password."""
    return any(mark in content for mark in _ENCRYPTED)


def _plain(lines: list[bytes]) -> bytes:
    """The certificate of a TRUSTED CERTIFICATE block, without the settings of trust after it."""
    try:
        content = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except binascii.Error:
        return b"\n".join(lines) + b"\n"
    if len(content) > 4 and content[1] & 0x80:
        count = content[1] & 0x7F
        content = content[: 2 + count + int.from_bytes(content[2 : 2 + count], "big")]
    text = base64.encodebytes(content).replace(b"\n", b"")
    rows = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *rows, b"-----END CERTIFICATE-----"]) + b"\n"
