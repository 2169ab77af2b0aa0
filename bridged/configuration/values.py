"""Kinds of values that several sections have, and the checks of single values. Pure."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Annotated, Any, Literal

from pydantic import Field

from bridged.addresses import Endpoint, MacAddress, Remote, is_host_name
from bridged.catalogue.settings import limits_of_key, row_of_key

DEFAULT_PORT = 1194

InterfaceName = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[!-.0-9;-~]+$")]
DigestName = Literal["SHA1", "SHA256", "SHA384", "SHA512"]
CipherName = Literal[
    "AES-256-GCM",
    "AES-128-GCM",
    "CHACHA20-POLY1305",
    "AES-192-GCM",
    "AES-256-CBC",
    "AES-192-CBC",
    "AES-128-CBC",
]


def dataplane_key(path: str) -> Any:
    """The field of a key that sets a data plane: default, limits and meaning are those of the catalogue."""
    row = row_of_key(path)
    key = row.setting.key
    assert key is not None
    least, most = limits_of_key(path)
    default = row.default if key.default is None else key.default
    return Field(default, ge=least, le=most, description=row.setting.meaning)


def checked_endpoint(text: str, default_port: int) -> str:
    """`text` as host:port, the host an IP address or a DNS name."""
    endpoint = Endpoint.parse(text, default_port)
    if not endpoint.is_numeric and not is_host_name(endpoint.host):
        raise ValueError(f"{text!r}: the host is neither an IP address nor a name")
    return str(endpoint)


def checked_remote(text: str) -> str:
    """`text` as host:port, with `/` and transport or IP family if it names them."""
    remote = Remote.parse(text, DEFAULT_PORT)
    checked_endpoint(remote.server.address, DEFAULT_PORT)
    return str(remote)


def checked_interface_address(text: str) -> str:
    """`text` as address/prefix; without a prefix it would be a network of one address."""
    try:
        address = ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address with a prefix length, such as 192.0.2.1/24") from None
    if "/" not in text:
        prefix = 24 if address.version == 4 else 64
        raise ValueError(f"{text!r} needs the network's prefix length: write {address.ip}/{prefix}")
    return str(address)


def checked_unicast(text: str) -> MacAddress:
    address = MacAddress.parse(text)
    if address.is_multicast or address.is_zero:
        raise ValueError(f"{text} cannot be an adapter's address (multicast or all zero)")
    return address
