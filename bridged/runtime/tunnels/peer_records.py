"""What one tunnel keeps and logs of its peers: counters, records by name, refusals, and the last error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from bridged.addresses import Endpoint
from bridged.dataplane.contract import ControlReceived
from bridged.protocol.packets.wrap import WrapKeys
from bridged.protocol.session.events import Established, Renegotiated
from bridged.protocol.session.terms import UNASKED_PASSWORD
from bridged.protocol.strangers.stranger import recognise
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.link import LinkDown, PeerLink
from bridged.runtime.tunnels.log_budget import LogBudget
from bridged.runtime.tunnels.refused import RefusedPeers
from bridged.runtime.tunnels.statistics import PeerBook, TunnelStatistics
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan

_UNOPENED: Final = frozenset({"wrap_mismatch", "short_packet", "bad_length", "bad_opcode"})
"""Drop reasons of packets whose wrap or body is not as ours."""
_PUT_OUT: Final = ("kicked", "auth_expired")
REFUSALS: Final = frozenset(
    (
        "auth_failed",
        "client_refused",
        "certificate_rejected",
        "certificate_expired",
        "certificate_revoked",
        "crl_expired",
        "name_mismatch",
    )
)
"""Handshake outcomes that mean: not let in."""


class PeerRecords:
    """Written by the tunnel and its role, read by `tunnel_status`.

    `now` gives monotonic seconds, `mac_conflicts` the conflicts that were found before the tunnel was made.
    """

    def __init__(self, plan: TunnelPlan, now: Callable[[], float], mac_conflicts: int = 0) -> None:
        self.statistics = TunnelStatistics()
        self.statistics.mac_conflicts["adapter"] += mac_conflicts
        self.book = PeerBook(plan.peer_names, plan.peer_retention)
        self.refused = RefusedPeers()
        self.last_error: str | None = None
        self.log = structlog.get_logger("bridged.tunnel").bind(tunnel=plan.name)
        self._asks_passwords = plan.admission.authentication is not None
        self._complaints = LogBudget(now)
        self._floats = LogBudget(now)

    def apply(self, plan: TunnelPlan) -> None:
        """Other configured names and another retention time; records stay."""
        self._asks_passwords = plan.admission.authentication is not None
        self.book.apply(plan.peer_names, plan.peer_retention)

    def note_established(self, link: PeerLink, event: Established) -> None:
        terms = event.negotiated
        self.statistics.note_handshake("initial", "established", event.duration)
        if terms.tls.peer_fingerprint:
            self.statistics.authentications["certificate", "accepted"] += 1
        self.book.note_established(link.name, terms, str(link.endpoint), unix_now())
        self.last_error = None
        self.refused.forget(link.endpoint)
        self.log.info(
            "peer_connected",
            peer=link.name,
            endpoint=str(link.endpoint),
            cipher=terms.cipher.value,
            tls=terms.tls.version,
            key_group=terms.tls.group,
            derivation=terms.key_derivation,
            seconds=round(event.duration, 3),
        )
        for warning in terms.warnings:
            self.log.warning("options_differ", peer=link.name, difference=warning)
        if terms.old_cipher is not None:
            self.log.warning("old_cipher", peer=link.name, detail=terms.old_cipher)
        if terms.has_unasked_password:
            self.statistics.authentications["password", "ignored"] += 1
            self.log.warning("password_ignored", peer=link.name, detail=UNASKED_PASSWORD)
        if terms.ignored:
            self.log.info("pushed_options_ignored", peer=link.name, options=list(terms.ignored))

    def note_path_mtu(self, link: PeerLink, octets: int | None) -> None:
        """What the path to the peer bears was measured; None: it is not known (any more)."""
        self.book.record(link.name).path_mtu = octets

    def note_renegotiated(self, link: PeerLink, event: Renegotiated) -> None:
        self.statistics.note_handshake("renegotiation", event.outcome, event.duration)
        self.statistics.renegotiations[event.trigger, event.outcome] += 1
        if event.outcome == "established" and link.terms is not None:
            self.book.note_renegotiated(link.name, link.terms, unix_now())
            self.log.debug("key_renegotiated", peer=link.name, trigger=event.trigger)
        else:
            self.log.warning(
                "renegotiation_failed", peer=link.name, outcome=event.outcome, detail=event.detail
            )

    def note_down(self, link: PeerLink, down: LinkDown) -> None:
        event = down.event
        if event.was_established:
            record = self.book.record(link.name)
            record.disconnects[event.reason] += 1
            if down.last is not None:
                record.retire(down.last)
            self.book.note_gone(link.name, unix_now())
            write = self.log.warning if event.reason in _PUT_OUT else self.log.info
            write("peer_disconnected", peer=link.name, reason=event.reason, detail=event.detail)
            return
        if event.reason in ("shutdown", "replaced", *_PUT_OUT):
            self.log.info("handshake_ended", endpoint=str(link.endpoint), reason=event.reason)
            return
        self.statistics.note_handshake("initial", event.reason, event.duration)
        if event.reason in REFUSALS and not self._asks_passwords:
            self.statistics.authentications["certificate", "refused"] += 1
        self.last_error = f"{event.reason}: {event.detail}"
        fields = self._complaints.take()
        if fields is None:
            return
        self.log.warning(
            "handshake_failed",
            endpoint=str(link.endpoint),
            outcome=event.reason,
            detail=event.detail,
            seconds=round(event.duration, 3),
            **fields,
        )

    def note_ended(self, link: PeerLink) -> None:
        """Keep the session's drop counters."""
        for code, count in link.session.drops.items():
            self.statistics.control_drops["receive", code] += count

    def note_float(self, link: PeerLink, previous: Endpoint) -> None:
        """The peer moved from `previous` to the link's endpoint."""
        record = self.book.record(link.name)
        record.endpoint_changes += 1
        record.last_endpoint = str(link.endpoint)
        fields = self._floats.take()
        if fields is not None:
            self.log.info(
                "peer_floated",
                peer=link.name,
                endpoint=str(link.endpoint),
                previous=str(previous),
                **fields,
            )

    def note_refused_key(self, source: Endpoint, detail: str) -> None:
        """Note a client whose tls-crypt-v2 key is refused; log it at its first packet, then ever rarer."""
        status = self.refused.note_refusal(source, "wrap_key_refused", detail, unix_now())
        fields = self._complaints.take() if status is not None else None
        if status is not None and fields is not None:
            self.log.warning(
                "wrap_key_refused", endpoint=status.endpoint, detail=detail, packets=status.times, **fields
            )

    def note_dropped(self, packet: ControlReceived | None, code: str, wrap: WrapKeys) -> None:
        """Count a drop; log it where the packet shows what its sender has configured wrongly.

        `packet`: the control packet that was dropped, None for anything else.
        """
        if packet is not None and code in _UNOPENED:
            stranger = recognise(packet.datagram, wrap)
            if stranger is not None:
                code = stranger.code
                status = self.refused.note_stranger(packet.source, stranger, packet.datagram, unix_now())
                fields = self._complaints.take() if status is not None else None
                if status is not None and fields is not None:
                    self.log.warning(
                        "stranger_refused",
                        endpoint=status.endpoint,
                        reason=status.reason,
                        detail=status.detail,
                        packets=status.times,
                        **fields,
                    )
        self.statistics.control_drops["receive", code] += 1
