"""MAC addresses as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bridged_tap.errors import TapSettingsError

_MAC_TEXT: Final = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


@dataclass(frozen=True, slots=True, order=True)
class MacAddress:
    """A 48-bit MAC address: `str(mac)` is `02:00:5e:10:00:01`, `bytes(mac)` its six bytes.

    `octets` holds them in transmission order.

    Raises:
        ValueError: not six bytes.
    """

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(self.octets)}")

    @classmethod
    def parse(cls, text: str) -> MacAddress:
        """Read `aa:bb:cc:dd:ee:ff` or `aa-bb-cc-dd-ee-ff`.

        Raises:
            ValueError: the text is not a MAC address.
        """
        if not _MAC_TEXT.fullmatch(text):
            raise ValueError(
                f"{text!r} is not a MAC address (expected six pairs of hex digits: 02:00:5e:10:00:01)"
            )
        return cls(bytes.fromhex(text.replace("-", ":").replace(":", "")))

    @property
    def is_multicast(self) -> bool:
        """The group bit is set: multicast or broadcast."""
        return bool(self.octets[0] & 1)

    @property
    def is_locally_administered(self) -> bool:
        """The local bit is set: not an address that a manufacturer gave."""
        return bool(self.octets[0] & 2)

    @property
    def is_zero(self) -> bool:
        """All 48 bits are 0."""
        return not any(self.octets)

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        return self.octets.hex(":")


def station_address(mac: MacAddress | str) -> MacAddress:
    """`mac`, parsed where it is text, if an adapter can have it.

    Raises:
        TapSettingsError: code `mac_address`; not an address, multicast, broadcast or all zero.
    """
    if isinstance(mac, str):
        try:
            mac = MacAddress.parse(mac)
        except ValueError as error:
            raise TapSettingsError("mac_address", str(error)) from error
    check_unicast(mac)
    return mac


def check_unicast(mac: MacAddress) -> None:
    """Refuse what cannot be the address of an adapter.

    Raises:
        TapSettingsError: code `mac_address`; multicast, broadcast or all zero.
    """
    if mac.is_zero:
        raise TapSettingsError("mac_address", f"{mac} is all zero; an adapter needs an address of its own")
    if mac.is_multicast:
        first = mac.octets[0]
        raise TapSettingsError(
            "mac_address",
            f"{mac} is a multicast address (the lowest bit of {first:02x} is set); an adapter needs a "
            f"unicast one, such as {MacAddress(bytes([first & 0xFE | 2]) + mac.octets[1:])}",
        )
