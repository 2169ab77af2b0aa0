"""The status of a daemon as lines of text, at most 80 columns wide. Pure: values in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from bridged.catalogue.counters import SLOWING_HAZARDS

if TYPE_CHECKING:
    from bridged.admin.models import BridgeAnswer, PeerAnswer, StatusAnswer, TunnelAnswer

COLUMNS: Final = 80
UNKNOWN: Final = "-"
NO_ALARM: Final = frozenset({"no_peer"})
"""Drops without harm: frames without a destination, as before the first peer connects. Metrics count them."""
REFUSED_SHOWN: Final = 5
EXPIRING: Final = {
    "own": "our certificate",
    "ca": "the CA certificate",
    "crl": "the revocation list (then nobody can connect)",
}
EXPIRING_PEERS_MAX: Final = 5


def head_line(answer: StatusAnswer) -> str:
    return f"bridged {answer.version}, pid {answer.pid}, up {span(answer.now - answer.started)}"


def warning_lines(answer: StatusAnswer) -> list[str]:
    """Problems that somebody must look at, and notes of what costs speed only."""
    lines: list[str] = []
    if answer.confirm_deadline is not None:
        left = max(0.0, answer.confirm_deadline - answer.now)
        lines.append(f"not confirmed: undone in {span(left)} unless you run `bridged confirm`")
    if answer.reload.outcome == "rejected":
        lines.append(f"the configuration was not reloaded: {clean(answer.reload.detail)}")
    lines += [f"bridge {row.name}: {clean(row.problem)}" for row in answer.bridges if row.problem]
    lines += [clean(text) for kind, text in answer.warnings.items() if kind not in SLOWING_HAZARDS]
    for item in answer.duties.undone:
        what = " ".join(word for word in (item.duty, item.subject) if word)
        since = span(max(0.0, answer.now - item.since))
        lines.append(f"not done for {since}: {clean(what)}: {clean(item.reason)}")
    for tunnel in answer.tunnels:
        lines += _expiry_lines(tunnel, answer.now)
    lines += [f"note: {clean(text)}" for kind, text in answer.warnings.items() if kind in SLOWING_HAZARDS]
    return [folded for line in lines for folded in fold(line)]


def _expiry_lines(tunnel: TunnelAnswer, now: float) -> Iterator[str]:
    """Certificates and revocation lists that end within 30 days."""
    from bridged.runtime.snapshot import EXPIRY_NOTICE_SECONDS

    ends = list(tunnel.certificates.items())
    if tunnel.crl_next_update is not None:
        ends.append(("crl", tunnel.crl_next_update))
    for role, end in ends:
        if end - now <= EXPIRY_NOTICE_SECONDS:
            yield f"tunnel {tunnel.name}: {EXPIRING.get(role, role)} {_ends(end - now)}"
    peers = [
        (peer.certificate_not_after, peer.name)
        for peer in tunnel.peers
        if peer.certificate_not_after is not None
        and 0 < peer.certificate_not_after - now <= EXPIRY_NOTICE_SECONDS
    ]
    for end, name in sorted(peers)[:EXPIRING_PEERS_MAX]:
        yield f"tunnel {tunnel.name}: the certificate of {clean(name)} {_ends(end - now)}"
    if len(peers) > EXPIRING_PEERS_MAX:
        yield f"tunnel {tunnel.name}: so do {len(peers) - EXPIRING_PEERS_MAX} more"


def _ends(left: float) -> str:
    return f"ends in {span(left)}" if left > 0 else f"ended {span(-left)} ago"


def bridge_lines(bridge: BridgeAnswer) -> Iterator[str]:
    """One bridge and its ports."""
    missing = set(bridge.missing)
    ports = ", ".join(
        f"{name}{'' if good else ' (missing)' if name in missing else ' (down)'}"
        for name, good in bridge.ports.items()
    )
    origin = "adopted" if bridge.adopted else "made"
    mtu = bridge.mtu if bridge.mtu is not None else UNKNOWN
    yield from fold(f"bridge {bridge.name}: {origin}, mtu {mtu}, mac {bridge.mac or UNKNOWN}")
    yield from fold(f"ports {ports or 'none'}", "  ")


def tunnel_lines(tunnel: TunnelAnswer, now: float) -> Iterator[str]:
    """One tunnel and its peers."""
    where = (
        f"listens on {tunnel.local_endpoint or UNKNOWN}"
        if tunnel.role == "server"
        else f"remote {tunnel.remote or UNKNOWN}, local {tunnel.local_endpoint or UNKNOWN}"
    )
    yield from fold(
        f"tunnel {clean(tunnel.name)}: {tunnel.role}, {tunnel.state}, {tunnel.transport}, {where}"
    )
    adapter = f"adapter {tunnel.tap or UNKNOWN} ({tunnel.tap_mac or UNKNOWN}) in {tunnel.bridge}"
    yield from fold(f"{adapter}, wrap {tunnel.wrap}", "  ")
    plane = tunnel.dataplane
    if plane is not None:
        offloads = ", ".join(name for name, on in plane.offloads.items() if on) or "none"
        kind = f"data plane {plane.dataplane}{f' ({plane.aead})' if plane.aead else ''}"
        yield from fold(f"{kind}, FDB {plane.fdb_entries} of {plane.fdb_capacity}, offloads {offloads}", "  ")
        yield from _drops_line("drops", plane.drops, "  ")
    yield from _drops_line("control packets dropped", tunnel.control_drops, "  ")
    for family, reason in tunnel.coalescing.items():
        if reason != "joined":
            yield from fold(f"{family} goes frame by frame: {clean(reason)}", "  ")
    yield from _conflict_lines(tunnel)
    yield f"  peers {sum(peer.sessions for peer in tunnel.peers)} of {tunnel.peers_limit}"
    if tunnel.last_error:
        yield from fold(f"last error: {clean(tunnel.last_error)}", "  ")
    for one in tunnel.refused[:REFUSED_SHOWN]:
        who = f"refused {clean(one.endpoint)} (×{one.times}, {span(max(0.0, now - one.last_seen))} ago)"
        yield from fold(f"{who}: {clean(one.reason)}: {clean(one.detail)}", "  ")
    for peer in tunnel.peers:
        yield from peer_lines(peer, now)


def _conflict_lines(tunnel: TunnelAnswer) -> Iterator[str]:
    """Conflicts between two devices or machines; the log names them."""
    contested = tunnel.mac_conflicts.get("lan_station", 0)
    if contested:
        yield from fold(
            f"LAN stations that a peer claims to have: {contested} (log: station_contested)", "  "
        )
    if tunnel.name_conflicts:
        times = f"{tunnel.name_conflicts} times (log: name_conflict)"
        yield from fold(f"two machines with one certificate ended each other's connection: {times}", "  ")


def peer_lines(peer: PeerAnswer, now: float) -> Iterator[str]:
    """One peer: where it is, how it is encrypted, what it moved."""
    state = "connected" if peer.connected else "away"
    if peer.sessions > 1:
        state += f" ×{peer.sessions}"
    parts = [f"{clean(peer.name)}: {state}"]
    if peer.endpoint:
        parts.append(peer.endpoint)
    if peer.last_seen is not None:
        parts.append(f"last seen {span(max(0.0, now - peer.last_seen))} ago")
    yield from fold(", ".join(parts), "    ")
    path = f"path MTU {peer.path_mtu}" if peer.path_mtu else None
    keys = [word for word in (peer.cipher, peer.tls_version, peer.key_group, path) if word]
    if keys:
        yield from fold(", ".join(keys), "      ")
    counters = peer.counters
    received = _traffic(counters.frames.get("receive", {}), counters.bytes.get("receive", {}))
    sent = _traffic(counters.frames.get("transmit", {}), counters.bytes.get("transmit", {}))
    yield from fold(f"received {received}, sent {sent}, FDB {peer.fdb_entries}", "      ")
    yield from _drops_line("drops", counters.drops, "      ")
    for remark in peer.remarks if peer.connected else ():
        yield from fold(clean(remark), "      ")


def _drops_line(title: str, drops: Mapping[str, Mapping[str, int]], indent: str) -> Iterator[str]:
    """`drops 3: receive replay 2, transmit too_big 1`; no line without drops."""
    found = {
        f"{direction} {reason}": count
        for direction, reasons in drops.items()
        for reason, count in reasons.items()
        if count and reason not in NO_ALARM
    }
    if found:
        each = ", ".join(f"{what} {count}" for what, count in found.items())
        yield from fold(f"{title} {sum(found.values())}: {each}", indent)


def fold(line: str, indent: str = "") -> Iterable[str]:
    """Fold into lines of at most COLUMNS; continuation lines are indented by two more."""
    return textwrap.wrap(
        line, COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


def _traffic(frames: Mapping[str, int], octets: Mapping[str, int]) -> str:
    return f"{sum(frames.values())} / {size(sum(octets.values()))}"


def size(octets: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def span(seconds: float) -> str:
    """Seconds for people: the two largest units."""
    whole = int(seconds)
    for unit, length, small, divisor in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // divisor} {small}"
    return f"{whole} s"


def clean(text: str) -> str:
    """Text of a peer without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "�" for character in text)
