"""MAC addresses for adapters: random, kept, derived or fixed.

Source: IEEE 802-2014, 8.2 (the two low bits of the first byte); RFC 2104 for `stable`.
Two of the 48 bits are fixed: the group bit is 0 (unicast), the local bit is 1 (no manufacturer's address).
"""

from __future__ import annotations

import hmac
import math
import os
import re
import tempfile
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bridged_tap.addresses import MacAddress, check_unicast
from bridged_tap.errors import TapError, TapSettingsError
from bridged_tap.links import kernel_addresses
from bridged_tap.settings import check_name

FREE_BITS: Final = 46
MACHINE_ID_FILE: Final = Path("/etc/machine-id")
DRAW_ATTEMPTS: Final = 64

_LOCAL: Final = 0x02
_GROUP: Final = 0x01
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}")
_STABLE_LABEL: Final = b"bridged tap mac v1"
_KEPT_SIZE: Final = 64

Taken = Callable[[MacAddress], bool] | Container[MacAddress]
"""Which addresses others have: a function that answers, or a set."""


class MacMode(StrEnum):
    """Where an adapter's address comes from.

    `RANDOM`: drawn once and kept in a file. `EPHEMERAL`: drawn each time. `STABLE`: derived from machine-id
    and name; nothing is stored. `FIXED`: the given one.
    """

    RANDOM = "random"
    EPHEMERAL = "ephemeral"
    STABLE = "stable"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class MacPolicy:
    """A mode, and the address where the mode is `FIXED`. `str(policy)` is what `parse` reads.

    Raises:
        TapSettingsError: code `mac_address`; a fixed address is missing, multicast or all zero.
    """

    mode: MacMode = MacMode.RANDOM
    address: MacAddress | None = None

    def __post_init__(self) -> None:
        if (self.mode is MacMode.FIXED) != (self.address is not None):
            raise TapSettingsError("mac_address", "an address belongs to mode `fixed`, and to no other mode")
        if self.address is not None:
            check_unicast(self.address)

    @classmethod
    def parse(cls, text: str) -> MacPolicy:
        """Read `random`, `ephemeral`, `stable`, or an address.

        Raises:
            TapSettingsError: code `mac_address`.
        """
        word = text.strip().lower()
        if word in {MacMode.RANDOM, MacMode.EPHEMERAL, MacMode.STABLE}:
            return cls(MacMode(word))
        try:
            address = MacAddress.parse(word)
        except ValueError as error:
            raise TapSettingsError("mac_address", f"{error}, nor one of random, ephemeral, stable") from error
        return cls(MacMode.FIXED, address)

    def __str__(self) -> str:
        return str(self.address) if self.address is not None else self.mode.value


def collision_probability(adapters: int) -> float:
    """The chance that among `adapters` independently drawn addresses at least two are equal.

    p = 1 - exp(-n(n-1) / 2^47), the birthday formula over 2^46 values. 1000 adapters: 7.1e-9. 10^6: 0.7 %.

    Raises:
        ValueError: a negative number of adapters.
    """
    if adapters < 0:
        raise ValueError("the number of adapters cannot be negative")
    return -math.expm1(-adapters * (adapters - 1) / 2 ** (FREE_BITS + 1))


def draw_mac(
    taken: Taken = (),
    random_bytes: Callable[[int], bytes] = os.urandom,
    attempts: int = DRAW_ATTEMPTS,
    on_conflict: Callable[[MacAddress], None] | None = None,
) -> MacAddress:
    """Draw a locally administered unicast address that is not `taken`, uniformly among all 2^46.

    `taken`: a set or a function. `random_bytes(6)` gives the candidates; `on_conflict` is called
    with each one that was taken.

    Raises:
        TapError: code `mac_exhausted`; `attempts` draws were all taken. `random_bytes` or `taken` is
            broken: with a million addresses taken, two draws in a row fail once in 10^15.
    """
    is_taken = _asked(taken)
    for _ in range(attempts):
        candidate = _as_local_unicast(random_bytes(6))
        if not is_taken(candidate):
            return candidate
        if on_conflict is not None:
            on_conflict(candidate)
    raise TapError("mac_exhausted", f"{attempts} random MAC addresses in a row are taken; check `taken`")


def derive_mac(machine_id: str, name: str, counter: int = 0) -> MacAddress:
    """The address of policy `stable`: HMAC-SHA256, keyed by the machine-id, over name and counter.

    Nobody can read the machine-id from it, as machine-id(5) asks. `counter` 0 is left out.

    Raises:
        TapError: code `mac_machine_id`; not 32 lower-case hex digits.
    """
    if not _MACHINE_ID.fullmatch(machine_id):
        raise TapError(
            "mac_machine_id",
            "mode `stable` needs a machine-id of 32 hex digits; run systemd-machine-id-setup or use `random`",
        )
    message = b"\0".join((_STABLE_LABEL, name.encode(), *([str(counter).encode()] if counter else [])))
    return _as_local_unicast(hmac.digest(bytes.fromhex(machine_id), message, "sha256")[:6])


def choose_mac(
    policy: MacPolicy | str,
    name: str,
    state_directory: Path | str | None = None,
    taken: Taken | None = None,
    machine_id: str | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
    on_conflict: Callable[[MacAddress], None] | None = None,
    keep: bool = True,
) -> MacAddress:
    """The address that adapter `name` shall have under `policy`.

    - `policy`: a `MacPolicy`, or text that `MacPolicy.parse` reads.
    - `state_directory`: where policy `random` keeps the address; the others need none.
    - `taken`: the addresses of others, as a set or a function; None: `kernel_addresses(except_link=name)`. An
      address that is taken is drawn or derived again, also a kept one. A fixed one is used all the same.
    - `on_conflict`: called with each address that was taken.
    - `machine_id`: None reads /etc/machine-id.
    - `keep`: write an address drawn for policy `random` at once. False: call `store_mac` yourself, when the
      adapter is there.

    Raises:
        TapSettingsError: code `tap_settings`; the name is a pattern or unusable, or `random` has no
            directory. Code `mac_address`; the policy cannot be read.
        TapError: codes `mac_exhausted`, `mac_machine_id`, `tap_links`, and `mac_state` where the kept
            address cannot be read or written.
    """
    if isinstance(policy, str):
        policy = MacPolicy.parse(policy)
    is_taken = _asked(kernel_addresses(except_link=name) if taken is None else taken)
    if policy.mode is MacMode.EPHEMERAL:
        return draw_mac(is_taken, random_bytes, on_conflict=on_conflict)
    if policy.address is not None:
        if on_conflict is not None and is_taken(policy.address):
            on_conflict(policy.address)
        return policy.address
    # A pattern (`tap%d`) would give every adapter made from it one and the same address.
    check_name(name)
    if policy.mode is MacMode.STABLE:
        return _derive_free(machine_id or _read_machine_id(), name, is_taken, on_conflict)
    if state_directory is None:
        raise TapSettingsError(
            "tap_settings", "policy `random` needs a state_directory to keep the address in"
        )
    kept = load_mac(state_directory, name)
    if kept is not None:
        if not is_taken(kept):
            return kept
        if on_conflict is not None:
            on_conflict(kept)
    address = draw_mac(is_taken, random_bytes, on_conflict=on_conflict)
    if keep:
        store_mac(state_directory, name, address)
    return address


def load_mac(state_directory: Path | str, name: str) -> MacAddress | None:
    """The address kept in `<state_directory>/mac/<name>`, or None when there is none yet.

    Raises:
        TapError: code `mac_state`; the file is there and cannot be used.
    """
    path = _kept_path(state_directory, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            text = file.read(_KEPT_SIZE)
        address = MacAddress.parse(text.decode("ascii").strip())
        check_unicast(address)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TapError) as error:
        raise TapError("mac_state", f"{path}: {error}; correct it, or delete it to get a new one") from error
    return address


def store_mac(state_directory: Path | str, name: str, address: MacAddress) -> None:
    """Keep `address` in `<state_directory>/mac/<name>`, whole or not at all, readable by the owner alone.

    Raises:
        TapError: code `mac_state`.
    """
    path = _kept_path(state_directory, name)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{address}\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise TapError("mac_state", f"{path} cannot be written: {error.strerror}", error.errno) from error


def _asked(taken: Taken) -> Callable[[MacAddress], bool]:
    return taken if callable(taken) else taken.__contains__


def _as_local_unicast(octets: bytes) -> MacAddress:
    return MacAddress(bytes([octets[0] & ~_GROUP & 0xFF | _LOCAL]) + octets[1:])


def _derive_free(
    machine_id: str,
    name: str,
    is_taken: Callable[[MacAddress], bool],
    on_conflict: Callable[[MacAddress], None] | None,
) -> MacAddress:
    for counter in range(DRAW_ATTEMPTS):
        candidate = derive_mac(machine_id, name, counter)
        if not is_taken(candidate):
            return candidate
        if on_conflict is not None:
            on_conflict(candidate)
    raise TapError("mac_exhausted", f"{DRAW_ATTEMPTS} derived MAC addresses for {name} are all taken")


def _read_machine_id() -> str:
    try:
        return MACHINE_ID_FILE.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise TapError(
            "mac_machine_id",
            f"{MACHINE_ID_FILE}: {error.strerror}; run systemd-machine-id-setup or use mode `random`",
        ) from error


def _kept_path(state_directory: Path | str, name: str) -> Path:
    check_name(name)
    return Path(state_directory) / "mac" / name


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
