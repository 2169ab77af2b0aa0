"""The peers of a data plane: who they are, their keys, paths, timers and totals.

Source: bridged/dataplane/contract/settings.py, `PeerSettings`; docs/protocol/data.md#2-5, #5-1, #6-3.
No I/O; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from typing import Any, Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import OCC_BURST, OCC_PER_SECOND, KeyNearLimit, PeerSettings
from bridged.dataplane.portable.control.allowance import Allowance
from bridged.dataplane.portable.tables.early_packets import EarlyPackets
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.traffic import Traffic
from bridged.dataplane.portable.transport.seam import Path, PeerAddress
from bridged.endings import take_every_step
from bridged.errors import DataplaneError
from bridged.protocol.packets.data_packet import serialize_data_header
from bridged.protocol.packets.fragments import HEADER_OCTETS, Reassembly, cut
from bridged.protocol.packets.framing import ADDED_MOST, UNWRAPPERS, WRAPPERS
from bridged.units import KeyId, PeerHandle, WirePeerId

IDS_REMEMBERED: Final = 64
"""If a peer takes any peer id: how many of them are remembered for one of its keys."""


class Peer:
    """One peer. `slots` are the keys that it may use, `sealing` the one that we use (None: none yet).

    `has_sealed`: there has been a key in use; before that the peer does not exist for senders. `sent_at` and
    `started_at` start the timers `ping` and `ping_restart`; `seen_at` is when the newest authenticated packet
    came (None: never). All are monotonic seconds. `wrap` and `unwrap` put on and take off compression framing
    (None: there is none), which adds `framing_octets` at most; `is_framing_told`: `FramingRefused` was
    reported. `fragment`: bytes of the largest packet (0: payloads are neither cut nor joined); `reassembly`
    joins parts.
    """

    __slots__ = (
        "early",
        "endpoint",
        "expired",
        "fragment",
        "fragment_sequence",
        "framing_octets",
        "handle",
        "has_sealed",
        "is_framing_told",
        "is_plain",
        "name",
        "occ",
        "path",
        "path_mtu",
        "ping",
        "ping_restart",
        "reassembly",
        "receive_peer_id",
        "sealing",
        "seen_at",
        "sent_at",
        "slots",
        "started_at",
        "traffic",
        "transmit_peer_id",
        "unwrap",
        "verdicts",
        "wrap",
    )

    def __init__(self, settings: PeerSettings, path: Path, now: float) -> None:
        self.handle = settings.handle
        self.name = settings.name
        self.endpoint = settings.endpoint
        self.receive_peer_id = settings.receive_peer_id
        self.transmit_peer_id = settings.transmit_peer_id
        self.wrap = WRAPPERS.get(settings.framing)
        self.unwrap = UNWRAPPERS.get(settings.framing)
        self.framing_octets = ADDED_MOST[settings.framing]
        self.is_framing_told = False
        self.fragment = settings.fragment
        self.fragment_sequence = int(now * 1000) & 255
        self.reassembly = Reassembly() if settings.fragment else None
        self.is_plain = self.unwrap is None and self.reassembly is None
        """Nothing stands around its frames inside of a packet."""
        self.path_mtu = 0
        """Bytes of the largest outer packet that crosses; 0: not known."""
        self.ping = settings.ping
        self.ping_restart = settings.ping_restart
        self.path = path
        self.slots: dict[KeyId, KeySlot] = {}
        self.sealing: KeySlot | None = None
        self.has_sealed = False
        self.traffic = Traffic()
        self.sent_at = now
        self.started_at = now
        self.seen_at: float | None = None
        self.verdicts: dict[bytes, Any] = {}
        """Remembered verdicts on frames from this peer, by addresses (`policy.verdicts`)."""
        self.expired = False
        self.occ = Allowance(OCC_BURST, OCC_PER_SECOND)
        self.early = EarlyPackets()

    def packed(self, frame: bytes, slot: KeySlot) -> list[bytes]:
        """A frame, ping or OCC message as the payloads of packets under this key."""
        payload = self.wrap(frame) if self.wrap else frame
        if not self.fragment:
            return [payload]
        self.fragment_sequence = self.fragment_sequence + 1 & 255
        return cut(payload, slot.payload_room(self.fragment) - HEADER_OCTETS, self.fragment_sequence)

    def near_limit(self, slot: KeySlot) -> KeyNearLimit | None:
        """The event that says that one of its keys should be replaced; it comes once for each key."""
        trigger = slot.limit_reached()
        return None if trigger is None else KeyNearLimit(self.handle, slot.key_id, trigger)

    def next_deadline(self) -> float:
        """When a ping or the expiry is due, whichever is earlier (monotonic seconds; inf: never)."""
        due = float("inf")
        if self.ping is not None and self.sealing is not None:
            due = self.sent_at + self.ping
        if self.ping_restart is not None and not self.expired:
            due = min(due, self.heard_at() + self.ping_restart)
        return due

    def heard_at(self) -> float:
        """When the peer's silence began."""
        return self.started_at if self.seen_at is None else max(self.started_at, self.seen_at)

    def close_keys(self) -> None:
        slots = list(self.slots.values())
        self.slots.clear()
        self.sealing = None
        for slot in slots:
            self.traffic.retire(slot.use)
        take_every_step(slot.close for slot in slots)


class PeerTable:
    """All peers, by handle, by endpoint and by wire peer id.

    `receivers` maps the first 4 bytes of a DATA_V2 packet to its peer and key; `find` covers what it lacks.
    """

    def __init__(self) -> None:
        self.by_handle: dict[PeerHandle, Peer] = {}
        self.by_address: dict[PeerAddress, Peer] = {}
        self.receivers: dict[bytes, tuple[Peer, KeySlot]] = {}
        self._by_wire_id: dict[WirePeerId, Peer] = {}
        self._take_any: dict[PeerHandle, Peer] = {}

    def get(self, handle: PeerHandle) -> Peer:
        """The peer.

        Raises:
            DataplaneError: `unknown_peer`.
        """
        try:
            return self.by_handle[handle]
        except KeyError:
            raise DataplaneError("unknown_peer", f"no peer with handle {handle}") from None

    def add(self, peer: Peer) -> None:
        """Add a peer.

        Raises:
            DataplaneError: `duplicate_peer`: handle or wire peer id are in use.
        """
        if peer.handle in self.by_handle:
            raise DataplaneError("duplicate_peer", f"peer handle {peer.handle} is in use")
        self._check_wire_id(peer, peer.receive_peer_id)
        self.by_handle[peer.handle] = peer
        self._index_wire_id(peer)
        # A new peer gets its endpoint even if an older one has the same: that one has reconnected.
        self.by_address[peer.path.address] = peer

    def remove(self, peer: Peer) -> None:
        del self.by_handle[peer.handle]
        self._unindex(peer)
        if self.by_address.get(peer.path.address) is peer:
            del self.by_address[peer.path.address]

    def install(self, peer: Peer, slot: KeySlot) -> None:
        """Add a key. One of the same key id is closed and no longer used for sealing."""
        self.drop_key(peer, slot.key_id)
        slot.address_to(peer.transmit_peer_id)
        if peer.reassembly is not None:
            # The last part of a payload may be short.
            slot.least_payload = 1
        peer.slots[slot.key_id] = slot
        self._index_slot(peer, slot)

    def drop_key(self, peer: Peer, key_id: KeyId) -> None:
        """Close a key; unknown ones are ignored."""
        slot = peer.slots.pop(key_id, None)
        if slot is None:
            return
        if peer.sealing is slot:
            peer.sealing = None
        self._unindex_slot(slot)
        peer.traffic.retire(slot.use)
        slot.close()

    def move(self, peer: Peer, address: PeerAddress, endpoint: Endpoint, path: Path) -> None:
        """Float: the peer has another endpoint from now on; a peer that had it loses it."""
        if self.by_address.get(peer.path.address) is peer:
            del self.by_address[peer.path.address]
        peer.path = path
        peer.path_mtu = 0
        peer.endpoint = endpoint
        self.by_address[address] = peer

    def find(self, header: bytes, source: PeerAddress) -> Peer | None:
        """The peer of a DATA_V2 packet whose first 4 bytes are `header`.

        If no peer has this id: the peer at `source` that takes any id, or the only peer that does.
        """
        peer = self._by_wire_id.get(WirePeerId(int.from_bytes(header[1:4], "big")))
        if peer is not None or not self._take_any:
            return peer
        peer = self.by_address.get(source)
        if peer is not None and peer.handle in self._take_any:
            return peer
        return next(iter(self._take_any.values())) if len(self._take_any) == 1 else None

    def remember(self, header: bytes, peer: Peer, slot: KeySlot) -> None:
        """A peer that takes any id was authenticated under this one: find it quickly next time."""
        if header not in self.receivers and len(slot.known_as) < IDS_REMEMBERED:
            self._know(header, peer, slot)

    def _check_wire_id(self, peer: Peer, wire_id: WirePeerId | None) -> None:
        if wire_id is not None and self._by_wire_id.get(wire_id) not in (None, peer):
            raise DataplaneError("duplicate_peer", f"peer id {wire_id} is in use")

    def _index_wire_id(self, peer: Peer) -> None:
        if peer.receive_peer_id is None:
            self._take_any[peer.handle] = peer
        else:
            self._by_wire_id[peer.receive_peer_id] = peer

    def _index_slot(self, peer: Peer, slot: KeySlot) -> None:
        if peer.receive_peer_id is not None:
            self._know(serialize_data_header(slot.key_id, peer.receive_peer_id), peer, slot)

    def _know(self, header: bytes, peer: Peer, slot: KeySlot) -> None:
        self.receivers[header] = (peer, slot)
        slot.known_as.append(header)

    def _unindex_slot(self, slot: KeySlot) -> None:
        for header in slot.known_as:
            known = self.receivers.get(header)
            if known is not None and known[1] is slot:
                del self.receivers[header]
        slot.known_as.clear()

    def _unindex(self, peer: Peer) -> None:
        if peer.receive_peer_id is None:
            self._take_any.pop(peer.handle, None)
        elif self._by_wire_id.get(peer.receive_peer_id) is peer:
            del self._by_wire_id[peer.receive_peer_id]
        for slot in peer.slots.values():
            self._unindex_slot(slot)
