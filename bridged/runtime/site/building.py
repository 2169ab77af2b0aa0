"""Builds one tunnel from its configuration: the adapter, the data plane, and the role that fit together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from bridged.addresses import MacAddress
from bridged.configuration.schema import Configuration
from bridged.configuration.tunnel import Tunnel, tap_name
from bridged.dataplane import Build, choose_dataplane, create_dataplane, fits_segments, tap_offloads
from bridged.dataplane.contract import TapPort
from bridged.runtime.client.client import ClientRole
from bridged.runtime.server.server import ServerRole
from bridged.runtime.service.descriptors import DescriptorStore
from bridged.runtime.static_key.listening import ListeningRole
from bridged.runtime.tunnels.adapter import AttachedTap, TunnelAdapter
from bridged.runtime.tunnels.coalescing import CoalescingGuard
from bridged.runtime.tunnels.dataplane_settings import dataplane_settings
from bridged.runtime.tunnels.mss import sizes_by_remote
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_credentials import bind_endpoint
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.runtime.tunnels.tunnel_role import RoleMaker


def build_tunnel(
    target: Configuration,
    plan: TunnelPlan,
    guard: CoalescingGuard,
    is_learned: Callable[[MacAddress], bool],
    store: DescriptorStore,
) -> tuple[RunningTunnel, TunnelAdapter]:
    """The tunnel, not started yet, and its open adapter, which outlives it.

    `store` may have adapter and sockets of a predecessor. `is_learned` says whether the daemon's switches
    know an address: the adapter does not take it then.

    Raises:
        TapError, AdapterLockedError: the adapter cannot be opened; nothing is left open.
        DataplaneError: its data plane is not built.
    """
    name, section = plan.name, target.tunnels[plan.name]
    choice = choose_dataplane(section.dataplane)
    log = structlog.get_logger("bridged")
    write = log.warning if choice.is_fallback else log.info
    write("dataplane_chosen", tunnel=name, dataplane=choice.kind, reason=choice.reason)
    adapter = TunnelAdapter(
        tap_name(name, section),
        section,
        target.state_directory,
        tap_offloads(choice.kind),
        is_learned,
        queues=section.workers if choice.kind == "native" else 1,
        store=store,
    )
    port = adapter.open()
    try:
        coalescing = guard.decide(name, section.coalesce, choice.kind, port)
        settings = dataplane_settings(name, section, port, choice.kind, coalescing.kinds)
        dataplane = create_dataplane(choice.kind, settings)
        tap = AttachedTap(
            name=port.name,
            mac=str(port.mac),
            reopen=partial(adapter.reopen, dataplane.attach_tap),
            coalescing=coalescing,
            fallbacks=adapter.fallbacks,
            mac_conflicts=adapter.mac_conflicts,
            is_inherited=adapter.is_inherited,
        )
        running = RunningTunnel(plan, dataplane, _role_maker(section, choice.kind, port), tap, store=store)
        running.inherit_sockets(bind_endpoint(section) if section.role == "server" else None)
        return running, adapter
    except BaseException:
        adapter.close()
        raise


def _role_maker(section: Tunnel, build: Build, port: TapPort) -> RoleMaker:
    if section.role == "server":
        return ListeningRole if section.wrap.mode == "static-key" else ServerRole
    sizes = sizes_by_remote(section, fits_path=fits_segments(build, port))
    return partial(ClientRole, sizes=sizes)
