"""Both directions of one data plane, put together for the loop.

Here the rooms meet: `lan_to_wan`, `wan_to_lan`, their policy stages, and the tables that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridged.catalogue.counters import zero_counts
from bridged.dataplane.contract import DataplaneEvent, DataplaneSettings, TapPort
from bridged.dataplane.portable.control.answers import Answers
from bridged.dataplane.portable.control.counters import BatchSizes, DropCounter
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.headers.mss import MssFitter
from bridged.dataplane.portable.headers.priority import dscp_reader
from bridged.dataplane.portable.lan_to_wan.batch_sealer import BatchSealer
from bridged.dataplane.portable.lan_to_wan.forwarding import Forwarding
from bridged.dataplane.portable.lan_to_wan.peer_batches import PeerBatcher
from bridged.dataplane.portable.lan_to_wan.reader import TapReader
from bridged.dataplane.portable.lan_to_wan.too_big import TooBig
from bridged.dataplane.portable.policy.from_lan import FromLan
from bridged.dataplane.portable.policy.from_peer import FromPeer
from bridged.dataplane.portable.policy.link_layer import create_link_layer
from bridged.dataplane.portable.policy.verdicts import Verdicts
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.dataplane.portable.tables.peers import PeerTable
from bridged.dataplane.portable.tap import Tap
from bridged.dataplane.portable.transport.wires import Wires
from bridged.dataplane.portable.wan_to_lan.deliver import Delivery
from bridged.dataplane.portable.wan_to_lan.opener import Opener
from bridged.dataplane.portable.wan_to_lan.receiver import Receiver
from bridged.dataplane.portable.wan_to_lan.tap_writer import TapWriter


class Directions:
    """The parts that frames pass, in both directions. `tell` hears of events.

    A frame out: `reader`, `forwarding`, `batches`, `sealer`, the transport. A frame in: the transport,
    `receiver`, its opener, `delivery`, `writer` or `batches`. `counts`: totals by family and name.
    """

    reader: TapReader
    writer: TapWriter

    def __init__(
        self,
        settings: DataplaneSettings,
        table: PeerTable,
        fdb: Fdb,
        wires: Wires,
        events: EventQueue,
        drops: DropCounter,
        batch_sizes: Mapping[str, BatchSizes],
        tell: Callable[[DataplaneEvent], None],
    ) -> None:
        self._coalesce = settings.coalesce
        self._drops = drops
        self._batch_sizes = batch_sizes
        self.counts = zero_counts("portable")
        self.mss = MssFitter(settings.mss_limit, self.counts["mtu_events"])
        link_layer = create_link_layer(fdb, table, tell, forward_between_peers=settings.forward_between_peers)
        self.verdicts = Verdicts(link_layer)
        dscp_of = dscp_reader(settings.priority)
        self.sealer = BatchSealer(drops, tell, dscp_of)
        self.batches = PeerBatcher(self.sealer)
        self._lan_policy = FromLan(self.verdicts, drops)
        self.too_big: TooBig | None = None
        if settings.answer_too_big:
            self.too_big = TooBig(settings.wan_mtu, drops, self.counts["mtu_events"])
        self.forwarding = Forwarding(
            self._lan_policy, self.batches, self.sealer, self.mss, dscp_of, self.too_big, self._write
        )
        tap = Tap(settings.tap, drops)
        self._wan_policy = FromPeer(self.verdicts, drops, tap)
        self.delivery = Delivery(self._wan_policy, self.batches, self.mss, self.too_big)
        self.answers = Answers(events.control, wires.send_to)
        opener = Opener(table, self._wan_policy, self.delivery, drops, tell)
        self.receiver = Receiver(
            table,
            wires.udp,
            opener,
            self.delivery,
            events,
            self.answers,
            drops,
            tell,
            is_static=settings.static_key,
        )
        self._use(tap)

    def attach(self, port: TapPort) -> None:
        """Read and write this adapter from now on."""
        self._use(Tap(port, self._drops))

    def _write(self, frame: bytes) -> None:
        """Write a frame to the adapter of the moment."""
        self.writer.write_one(frame)

    def _use(self, tap: Tap) -> None:
        self.tap = tap
        self._wan_policy.tap = tap
        self.reader = TapReader(tap, self._lan_policy, self._drops)
        self.writer = TapWriter(tap, self._coalesce, self._batch_sizes["frames_per_tap_write"])
