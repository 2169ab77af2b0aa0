"""Finds packet filter chains that drop frames which only cross a bridge.

With `br_netfilter` loaded (Docker loads it), bridged IP packets go through the FORWARD chains of nftables or
iptables. A DROP policy there drops them silently; `HostWatch` warns about it.

Source: Linux `Documentation/networking/ip-sysctl.rst` (bridge-nf-call-*), `nf_tables.h`, `nfnetlink.h`.
Blocking, a millisecond. Where no filter sees bridged packets, this only reads two small files.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridged.errors import NetlinkError
from bridged.netlink.multicast import attributes, messages

_SWITCHES: Final = Path("/proc/sys/net/bridge")
_NETLINK_NETFILTER: Final = 12
_NFTABLES: Final = 10 << 8
_NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE = (_NFTABLES | number for number in (3, 4, 6, 7))
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_AND_DUMP: Final = 0x301
_FAMILIES: Final = {1: ("iptables", "ip6tables"), 2: ("iptables",), 10: ("ip6tables",)}
"""nfgenmsg family (inet, ipv4, ipv6) -> what sends bridged packets through its chains."""
_FAMILY_NAMES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_HOOK_FORWARD: Final = 2
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_RULE_TABLE, _RULE_CHAIN = 1, 2
_NUMBER: Final = struct.Struct("!I")
_DATAGRAM_OCTETS: Final = 1 << 16
_ANSWER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class DroppingChain:
    """A base chain of the forward hook with policy drop that bridged packets traverse.

    `switch`: the sysctl that sends them there.
    """

    family: str
    table: str
    name: str
    switch: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def bridge_netfilter() -> frozenset[str]:
    """Which of `iptables` and `ip6tables` see bridged frames. Empty: none."""
    seen = set()
    for tables in ("iptables", "ip6tables"):
        try:
            if (_SWITCHES / f"bridge-nf-call-{tables}").read_text().strip() != "0":
                seen.add(tables)
        except OSError:
            continue
    return frozenset(seen)


def dropping_chains(bridges: Collection[str]) -> list[DroppingChain]:
    """Chains that drop what crosses `bridges`.

    Skips a chain with a rule about bridged packets or about one of the bridges: its owner has decided.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    seen = bridge_netfilter()
    if not seen:
        return []
    found = []
    for family, body in _dump(_GETCHAIN, _NEWCHAIN):
        chain = _dropping(family, body, seen)
        if chain is not None:
            found.append((family, chain))
    if not found:
        return []
    rules = list(_dump(_GETRULE, _NEWRULE))
    marks = (b"physdev\0", *(name.encode() + b"\0" for name in bridges))
    return [chain for family, chain in found if not _has_own_rule(family, chain, rules, marks)]


def _dropping(family: int, body: bytes, seen: Collection[str]) -> DroppingChain | None:
    switches = [tables for tables in _FAMILIES.get(family, ()) if tables in seen]
    if not switches:
        return None
    found = dict(attributes(body, 0))
    hook = dict(attributes(found.get(_CHAIN_HOOK, b""), 0)).get(1, b"")
    policy = found.get(_CHAIN_POLICY, b"")
    if hook != _NUMBER.pack(_HOOK_FORWARD) or policy != _NUMBER.pack(0):
        return None
    switch = f"net.bridge.bridge-nf-call-{switches[0]}"
    return DroppingChain(
        _FAMILY_NAMES[family], _text(found.get(_CHAIN_TABLE, b"")), _text(found.get(_CHAIN_NAME, b"")), switch
    )


def _has_own_rule(
    family: int, chain: DroppingChain, rules: list[tuple[int, bytes]], marks: Collection[bytes]
) -> bool:
    for other, body in rules:
        found = dict(attributes(body, 0))
        place = _text(found.get(_RULE_TABLE, b"")), _text(found.get(_RULE_CHAIN, b""))
        if other == family and place == (chain.table, chain.name) and any(mark in body for mark in marks):
            return True
    return False


def _text(octets: bytes) -> str:
    text = octets.rstrip(b"\0").decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _dump(request: int, wanted: int) -> Iterator[tuple[int, bytes]]:
    """(family, attributes) of the objects of a kind, of all families."""
    operation = "list the packet filter"
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as kernel:
            kernel.settimeout(_ANSWER_SECONDS)
            kernel.bind((0, 0))
            kernel.send(struct.pack("=IHHIIBBH", 20, request, _REQUEST_AND_DUMP, 1, 0, 0, 0, 0))
            while True:
                for kind, body in messages(kernel.recv(_DATAGRAM_OCTETS)):
                    if kind == _NLMSG_DONE:
                        return
                    if kind == _NLMSG_ERROR:
                        number = -struct.unpack_from("=i", body)[0]
                        raise OSError(number, os.strerror(number))
                    if kind == wanted and len(body) >= 4:
                        yield body[0], body[4:]
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            return  # no nftables in this kernel
        raise NetlinkError(operation, "the host", error.errno or 0, error.strerror or str(error)) from error
