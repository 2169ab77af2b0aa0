"""A certificate's subject as OpenVPN prints it, for `verify-x509-name … subject`.

OpenVPN lets OpenSSL print it: RDNs in the certificate's order, short names, UTF-8, with only control
characters and backslashes escaped. The Python library prints in reverse, escapes more, uses other names, and
refuses strings that OpenSSL accepts. Therefore this module reads the DER form itself.

Source: RFC 5280, section 4.1 (TBSCertificate, Name); X509_NAME_print_ex(3), ASN1_STRING_print_ex(3) with
XN_FLAG_SEP_CPLUS_SPC, ASN1_STRFLGS_UTF8_CONVERT and ASN1_STRFLGS_ESC_CTRL.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_VERSION: Final = 0xA0
_UTF8_STRING: Final = 0x0C
_UNIVERSAL_STRING: Final = 0x1C
_BMP_STRING: Final = 0x1E

_SHORT_NAMES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}


def printed_subject(tbs_certificate: bytes) -> str:
    """The subject, such as `C=NL, O=Example, CN=vpn`, from the to-be-signed part of a certificate in DER.

    Raises:
        ValueError: it is not from a certificate.
    """
    parts = list(_values(_only(tbs_certificate, _SEQUENCE)))
    if parts and parts[0][0] == _VERSION:
        parts = parts[1:]
    # serialNumber, signature, issuer, validity, subject
    if len(parts) < 5 or parts[4][0] != _SEQUENCE:
        raise ValueError("no subject in it")
    printed = ", ".join(
        " + ".join(_attribute(content) for tag, content in _values(rdn) if tag == _SEQUENCE)
        for tag, rdn in _values(parts[4][1])
        if tag == _SET
    )
    # OpenVPN replaces it before it compares.
    return "_" + printed[1:] if printed.startswith("-") else printed


def _attribute(content: bytes) -> str:
    found = list(_values(content))
    if len(found) != 2 or found[0][0] != _OID:
        raise ValueError("no attribute of a name")
    oid = _dotted(found[0][1])
    return f"{_SHORT_NAMES.get(oid, oid)}={_text(*found[1])}"


def _text(tag: int, content: bytes) -> str:
    """Like OpenSSL, take strings with one byte for each character as Latin-1."""
    if tag == _UTF8_STRING:
        text = content.decode("utf-8", errors="replace")
    elif tag == _BMP_STRING:
        text = content.decode("utf-16-be", errors="replace")
    elif tag == _UNIVERSAL_STRING:
        text = content.decode("utf-32-be", errors="replace")
    else:
        text = content.decode("latin-1")
    return "".join(
        f"\\{ord(char):02X}" if char < " " or char == "\x7f" else "\\\\" if char == "\\" else char
        for char in text
    )


def _dotted(content: bytes) -> str:
    arcs: list[int] = []
    value = 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    if not arcs:
        raise ValueError("an empty object identifier")
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def _only(content: bytes, wanted: int) -> bytes:
    (tag, inner), *rest = _values(content)
    if tag != wanted or rest:
        raise ValueError("not what was expected in DER")
    return inner


def _values(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER value in turn.

    Raises:
        ValueError: a length that is not DER, or beyond the end.
    """
    at = 0
    while at < len(content):
        if at + 2 > len(content):
            raise ValueError("DER ends early")
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or at + count > len(content):
                raise ValueError("a length that is not DER")
            length = int.from_bytes(content[at : at + count], "big")
            at += count
        if at + length > len(content):
            raise ValueError("DER ends early")
        yield tag, content[at : at + length]
        at += length
