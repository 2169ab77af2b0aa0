"""From the configured bridges to what `netlink` keeps: wishes, and the destinations of their tunnels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import structlog

from bridged.addresses import MacAddress, Remote
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel, tap_name
from bridged.errors import NetlinkError
from bridged.link_planning.vlans import parse_vlans
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import leftovers
from bridged.netlink.attachment import BridgeAttachment
from bridged.netlink.attachment_state import AttachmentEvent
from bridged.netlink.watch import LinkWatch
from bridged.runtime.site.bridge_lock import is_kept_by_another
from bridged.runtime.snapshot import BridgeStatus
from bridged.runtime.tunnels.tunnel_credentials import bound_endpoints
from bridged_tap import choose_mac

_WARNINGS = frozenset(
    {
        *("bridge_problem", "bridge_port_missing", "bridge_journal_failed", "bridge_journal_damaged"),
        "bridge_leftovers_remain",
    }
)


class HasRemotes(Protocol):
    """What a bridge needs of a running tunnel."""

    def destinations(self) -> Collection[str]:
        """IP addresses that the tunnel sends to, as far as known. Called in any thread."""


def wish_for(configuration: Configuration, name: str) -> BridgeWish:
    """What the configuration wants of bridge `name`, including its tunnels' TAPs.

    A bridge that we make without ports and without a configured MAC address gets one that is kept under the
    state folder, so that its DHCP lease survives a restart.

    Raises:
        TapError: `mac_state`; the state folder cannot be written.
    """
    bridge = configuration.bridges[name]
    taps = tuple(
        BridgeTap(tap_name(tunnel_name, tunnel), tunnel.adapter_mtu, tunnel.tap.queue_frames)
        for tunnel_name, tunnel in configuration.tunnels.items()
        if tunnel.bridge == name
    )
    fixed = MacAddress.parse(bridge.mac) if bridge.mac else None
    return BridgeWish(
        name=name,
        ports=bridge.ports,
        taps=taps,
        addresses=bridge.addresses,
        mtu=bridge.mtu,
        mac=fixed,
        fallback_mac=fixed or choose_mac("random", name, configuration.state_directory),
        stp=bridge.stp,
        ageing_seconds=bridge.ageing_seconds,
        forward_delay_seconds=bridge.forward_delay_seconds,
        group_forward_mask=bridge.group_forward_mask,
        move_addresses=bridge.move_addresses,
        vlans=parse_vlans(bridge.vlans) if bridge.vlans is not None else None,
    )


def attach_bridge(
    configuration: Configuration,
    name: str,
    current: Callable[[], Configuration],
    running: Callable[[str], HasRemotes | None],
    watch: LinkWatch,
) -> BridgeAttachment:
    """The keeper of one bridge, not started yet.

    `current` gives the present configuration, `running` a running tunnel by its name. The netlink thread
    calls both, also while tunnels come and go in the event loop.
    """

    def destinations() -> list[str]:
        return tunnel_destinations(current(), running, name)

    return BridgeAttachment(
        wish_for(configuration, name),
        destinations=destinations,
        watch=watch,
        report=_report,
        journal=_journals(configuration) / f"{name}.json",
    )


async def undo_leftovers(configuration: Configuration, *, has_begun: bool = False) -> None:
    """Undo what a killed daemon left and the configuration no longer wants, before any bridge is made.

    `has_begun`: bridges run already, and what belongs to them is not touched.

    Raises:
        NetlinkError: some of it remains; call this again.
    """
    wishes = {name: None if has_begun else wish_for(configuration, name) for name in configuration.bridges}
    # Bridges of a running daemon with the same state folder.
    kept = [path.stem for path in _journals(configuration).glob("*.json") if is_kept_by_another(path.stem)]
    wishes |= dict.fromkeys(kept)
    events = await asyncio.to_thread(leftovers.undo_leftovers, _journals(configuration), wishes)
    for event in events:
        _report(event)
    left = [event for event in events if event.name == "bridge_leftovers_remain"]
    if left:
        names = ", ".join(event.bridge for event in left)
        raise NetlinkError("undo what a killed daemon left", names, 0, left[0].details["reason"])


def _journals(configuration: Configuration) -> Path:
    return configuration.state_directory / "bridges"


def _report(event: AttachmentEvent) -> None:
    log = structlog.get_logger("bridged.bridge")
    write = log.warning if event.name in _WARNINGS else log.info
    write(event.name, bridge=event.bridge, **event.details)


def bridge_status(attachment: BridgeAttachment) -> BridgeStatus:
    """The bridge at the last look."""
    seen = attachment.status()
    return BridgeStatus(
        name=seen.name,
        mac=seen.mac,
        mtu=seen.mtu,
        adopted=seen.adopted,
        ports=dict(seen.ports),
        repairs=dict(seen.repairs),
        missing=seen.missing,
        problem=seen.problem,
    )


def tunnel_destinations(
    configuration: Configuration,
    running: Callable[[str], HasRemotes | None] = lambda name: None,
    bridge: str | None = None,
) -> list[str]:
    """What the tunnels (of one bridge) send to, or listen on, as `netlink.check_ports` takes it."""
    found: list[str] = []
    for name, tunnel in configuration.tunnels.items():
        if bridge in (None, tunnel.bridge):
            found += _destinations(tunnel, running(name))
    return found


def _destinations(tunnel: Tunnel, running: HasRemotes | None) -> list[str]:
    connected = running.destinations() if running is not None else ()
    if tunnel.role == "server":
        hosts = [endpoint.host for endpoint in bound_endpoints(tunnel)]
        # A socket on :: receives IPv4, too.
        return [*hosts, *(["0.0.0.0"] if "::" in hosts else []), *connected]
    return [*(Remote.parse(text, 1).server.host for text in tunnel.remotes), *connected]
