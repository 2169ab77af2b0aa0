"""The TAP of one tunnel: opens it with its address, and opens it again when it vanishes."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from bridged.addresses import MacAddress
from bridged.configuration.tunnel import Tunnel
from bridged.dataplane.contract import TapPort
from bridged.runtime.service.descriptors import DescriptorStore
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.tunnels.coalescing import Coalescing
from bridged.supervision import SUPERVISOR
from bridged.units import Octets
from bridged_tap import (
    AdapterLockedError,
    Offload,
    TapAdapter,
    TapError,
    address_owners,
    choose_mac,
    inherit_tap,
    open_tap,
)

REOPEN_SECONDS: Final = 1.0
"""Longest pause between two attempts to reopen a vanished adapter."""

_OFFLOAD_NAMES: Final = {
    Offload.CSUM: "csum",
    Offload.TSO4: "tso4",
    Offload.TSO6: "tso6",
    Offload.TSO_ECN: "tso_ecn",
    Offload.USO4: "uso4",
    Offload.USO6: "uso6",
}

_REFUSED_NAMES: Final = {
    "tap_tso": Offload.TSO4 | Offload.TSO6 | Offload.TSO_ECN,
    "tap_uso": Offload.USO4 | Offload.USO6,
}


@dataclass(frozen=True, slots=True)
class AttachedTap:
    """The open TAP of a running tunnel.

    `reopen` gets the adapter back after it vanished. `fallbacks` counts offloads that could not be used, by
    (offload, cause); it may still grow. `mac_conflicts`: candidate addresses that were taken. `is_inherited`:
    a predecessor left it.
    """

    name: str
    mac: str
    reopen: Callable[[], None]
    coalescing: Coalescing = field(default_factory=lambda: Coalescing(frozenset()))
    fallbacks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    mac_conflicts: int = 0
    is_inherited: bool = False


class TunnelAdapter:
    """Keeps the adapter of one tunnel open, under one name and address, as long as the tunnel lives.

    `offloads`: offloads that the data plane can handle (`csum`, `tso4`, …). `is_learned` says
    whether our own switches know an address; `mac_conflicts` counts candidates that were taken. `queues`:
    how many queues deliver frames; more than one makes a multi-queue adapter with one more, disabled queue
    for writing. `store` keeps the descriptors for a successor, and may have those of a predecessor;
    `is_inherited`, after `open`: it had. `fallbacks` counts the offloads that the kernel refused, by
    (offload, cause).
    """

    def __init__(
        self,
        name: str,
        tunnel: Tunnel,
        state_directory: Path,
        offloads: Collection[str],
        is_learned: Callable[[MacAddress], bool] = lambda address: False,
        queues: int = 1,
        store: DescriptorStore | None = None,
    ) -> None:
        self.name = name
        self._tunnel = tunnel
        self._state_directory = state_directory
        self._offloads = offloads
        self._is_learned = is_learned
        self._queues = queues
        self._log = structlog.get_logger("bridged.tap").bind(tap=name)
        self._mac: MacAddress | None = None
        self._adapter: TapAdapter | None = None
        self._task: asyncio.Task[None] | None = None
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        self.mac_conflicts = 0
        self.is_inherited = False
        self._store = store or DescriptorStore(ServiceManager())
        self._group = f"tap/{name}"

    def open(self) -> TapPort:
        """Open and lock the adapter and set it up.

        Raises:
            TapError, AdapterLockedError: as `open_tap` and `choose_mac`.
        """
        self._adapter = self._inherit() or self._make()
        try:
            if self._queues > 1:
                self._adapter.queues[self._queues].disable()
            self._adapter.up()
            port = _tap_port(self._adapter, self._queues)
        except BaseException:
            self._release()
            raise
        self._log_refused(self._adapter.refused_offloads)
        self._store.keep(self._group, self._adapter.fds)
        self._log.info(
            "tap_inherited" if self.is_inherited else "tap_opened",
            mac=str(port.mac),
            mtu=port.mtu,
            offloads=sorted(port.offloads),
        )
        return port

    def _make(self) -> TapAdapter:
        self._mac = self._mac or self._choose_mac()
        return self._open_by(open_tap)

    def _inherit(self) -> TapAdapter | None:
        """The adapter that a predecessor left; None: there is none, or it does not fit."""
        self.is_inherited = False
        descriptors = self._store.take(self._group)
        if not descriptors:
            return None
        if self._tunnel.tap.mac != "ephemeral":
            self._mac = self._mac or self._choose_mac()
        try:
            adapter = self._open_by(partial(inherit_tap, descriptors))
        except AdapterLockedError:
            raise
        except TapError as error:
            self._log.warning("tap_not_inherited", reason=error.message, code=error.code)
            for descriptor in descriptors:
                os.close(descriptor)
            # It is free to be made anew only when the manager has closed its copies, too.
            self._store.forget(self._group)
            return None
        self.is_inherited = True
        self._mac = adapter.mac
        return adapter

    def _open_by(self, opener: Callable[..., TapAdapter]) -> TapAdapter:
        """By `open_tap` or `inherit_tap`: both take the same settings."""
        tap = self._tunnel.tap
        return opener(
            name=self.name,
            persistent=tap.persistent,
            mac=self._mac,
            mtu=self._tunnel.adapter_mtu,
            txqueuelen=tap.queue_frames,
            virtio_header=tap.offload,
            offloads=self._wanted_offloads(),
            queues=self._queues + 1 if self._queues > 1 else 1,
            lock=tap.lock,
        )

    def reopen(self, attach: Callable[[TapPort], None]) -> None:
        """The adapter vanished: try until it opens again, then `attach` it. Returns at once."""
        if self._task is None or self._task.done():
            SUPERVISOR.note_undone("tap", self.name, "the adapter has vanished")
            self._task = SUPERVISOR.keep(
                "tap", lambda: self._reopen(attach), self.name, longest_pause_seconds=REOPEN_SECONDS
            )

    def close(self) -> None:
        """Close the adapter, which vanishes unless it is persistent, and release its lock. Idempotent."""
        self._stop_reopening()
        self._release()

    def hand_over(self) -> None:
        """Close it here and leave it, up and in its bridge, to a successor. Idempotent."""
        self._stop_reopening()
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.detach()

    def _stop_reopening(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _release(self) -> None:
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()
            self._store.forget(self._group)

    async def _reopen(self, attach: Callable[[TapPort], None]) -> None:
        self._release()
        attach(self.open())

    def _choose_mac(self) -> MacAddress:
        owners = address_owners(except_link=self.name)

        def conflict(address: MacAddress) -> None:
            self.mac_conflicts += 1
            owner = owners.get(address, "a remote station")
            self._log.warning("mac_conflict", address=str(address), owner=owner, other_owner=self.name)

        return choose_mac(
            self._tunnel.tap.mac,
            self.name,
            self._state_directory,
            lambda address: address in owners or self._is_learned(address),
            on_conflict=conflict,
        )

    def _log_refused(self, refused: Offload) -> None:
        if not refused:
            return
        words = [word for offload, word in _OFFLOAD_NAMES.items() if offload & refused]
        self._log.info("tap_offloads_refused", offloads=sorted(words))
        for name, offloads in _REFUSED_NAMES.items():
            if offloads & refused:
                self.fallbacks[name, "einval"] += 1

    def _wanted_offloads(self) -> Offload:
        wanted = Offload.NONE
        if self._tunnel.tap.offload:
            for offload, word in _OFFLOAD_NAMES.items():
                if word in self._offloads:
                    wanted |= offload
        return wanted


def _tap_port(adapter: TapAdapter, queues: int) -> TapPort:
    return TapPort(
        fds=adapter.fds[:queues],
        writer=adapter.fds[queues] if queues > 1 else None,
        name=adapter.name,
        mac=adapter.mac,
        mtu=Octets(adapter.mtu),
        virtio_header_size=adapter.virtio_header_size,
        offloads=frozenset(word for offload, word in _OFFLOAD_NAMES.items() if offload & adapter.offloads),
    )
