"""What the control plane may ask of a data plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridged.addresses import Endpoint
from bridged.dataplane.contract.events import DataplaneEvent
from bridged.dataplane.contract.limits import STREAM_PACKET_OCTETS
from bridged.dataplane.contract.settings import PeerSettings, ResetAnswers, TapPort
from bridged.dataplane.contract.snapshots import DataplaneSnapshot, PeerSnapshot
from bridged.dataplane.contract.stations import FdbEntry, Station, StationEvents
from bridged.protocol.keys.key_derivation import DataKey
from bridged.units import KeyId, PeerHandle


class DataPlane(Protocol):
    """One tunnel's frames. All methods are called from the control plane's thread and return at once.

    Raises:
        DataplaneError: `unknown_peer` from all methods with a handle but `remove_key`; other codes where a
            method says so.
    """

    name: str

    def start(self) -> None:
        """Open the UDP socket, if it has a place to bind to, and begin.

        Frames flow once a peer has a key in use.

        Raises:
            DataplaneError: `bind_failed`, with the endpoint and the reason.
        """

    def stop(self) -> None:
        """End the threads, close the socket, zeroise all keys. Idempotent."""

    @property
    def local_endpoint(self) -> Endpoint | None:
        """Where the socket is bound (None before `start`, or before an unbound socket has sent)."""

    def attach_tap(self, tap: TapPort) -> None:
        """Replace the adapter; frames in between are lost and counted."""

    def use_socket(self, descriptor: int | None) -> None:
        """Send and receive through this UDP socket, which the caller has opened (None: through none).

        The data plane duplicates the descriptor and sets the options that it needs, UDP_GRO among them. The
        caller must not read from the socket meanwhile. Clients call this before `add_peer`: older peers keep
        an address of the old socket's family.

        Raises:
            DataplaneError: `system`: it cannot be used.
        """

    def adopt_stream(
        self,
        descriptor: int,
        endpoint: Endpoint,
        received: bytes,
        packet_octets: int = STREAM_PACKET_OCTETS,
    ) -> None:
        """Reach `endpoint`, whose transport is `tcp`, through this connected TCP socket.

        `received`: bytes that the caller has read of it. The data plane duplicates the descriptor and sets
        the options that it needs. Packets stand behind their length, two bytes each. A peer at such an
        endpoint does not float; its packet ids have to rise. An earlier stream of the same endpoint is
        closed, and no `StreamClosed` of it follows.

        A smaller `packet_octets` is for strangers: until `add_peer` names the endpoint, a longer packet ends
        the stream (`bad_framing`), and STREAM_STRANGER_OCTETS may wait for it. Then the socket's buffers,
        which the caller has made small, grow as the kernel likes.

        Raises:
            DataplaneError: `system`: it cannot be used.
        """

    def close_stream(self, endpoint: Endpoint) -> None:
        """End a stream once what waits for it has been sent; no `StreamClosed` follows.

        Nothing that arrives is read any more. Ignored if there is none.
        """

    def inherit_sockets(self, descriptors: Sequence[int]) -> None:
        """Have `start` use these bound sockets, one for each worker, instead of binding new ones.

        The data plane duplicates the descriptors. The caller has compared their address with `bind`.

        Raises:
            DataplaneError: `bad_setting`: another number of sockets; `system`: they cannot be used.
        """

    def socket_descriptors(self) -> tuple[int, ...]:
        """The sockets in use, for `inherit_sockets` of a successor; they stay the data plane's."""

    def hold(self, *, lan: bool, wan: bool) -> None:
        """Leave frames in the adapter, and datagrams in the socket, or read them again.

        The kernel keeps as many as its queues take, and drops the rest. Sending goes on. A vanished adapter
        may not be noticed before frames are read again.
        """

    def ask_threads(self) -> None:
        """Ask every thread for a sign of life. Under load, too, the answer comes with its next turn."""

    def silent_threads(self) -> tuple[str, ...]:
        """Names of the threads that have not answered the latest `ask_threads`."""

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        """Fit TCP to these sizes (bytes) from now on; see `DataplaneSettings`.

        Clients call this before `add_peer`: peers added before keep the MTU of their path.

        Raises:
            DataplaneError: `bad_setting`.
        """

    def add_peer(self, peer: PeerSettings) -> None:
        """Add a peer. It receives and sends nothing before a key is installed and in use.

        Raises:
            DataplaneError: `duplicate_peer`: its handle or `receive_peer_id` is in use; `bind_failed`: no
                socket or stream can reach it.
        """

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        """Forget the peer, its keys (zeroised) and its stations; returns its last figures."""

    def expect_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """The peer may seal with this key before `install_key`.

        Packets under it that come from the peer's endpoint wait for `install_key`: EARLY_OCTETS at most, for
        EARLY_SECONDS at most. Then they come before all later ones under it, also while the WAN is held. The
        rest count as `unknown_key_id`. One key of a peer is expected at a time.
        """

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        """Accept packets under this key from now on. The data plane owns the key and zeroises it later.

        A key of the same key id is replaced.
        """

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Encrypt with this key from the next frame on.

        Raises:
            DataplaneError: `unknown_key`.
        """

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Forget a key (zeroised). Unknown peers and keys are ignored: it may have gone with its peer."""

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        """Answer hard resets of strangers from now on, as `Listener` would (None: stop answering).

        Other packets of strangers are handed up if they bring a cookie back, or did so before. Of the rest a
        few a second are handed up: the control plane logs what is wrong with them.
        """

    def expect(self, endpoint: Endpoint) -> None:
        """A session begins its handshake there: its packets are not a stranger's.

        Calls add up; each needs its `stop_expecting`.
        """

    def stop_expecting(self, endpoint: Endpoint) -> None:
        """That session is over; ignored if there is none."""

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        """Send a control packet. If the socket is full it is dropped and counted: the session repeats it."""

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        """Encrypt and send what is no frame (ping, OCC); ignored while the peer has no key in use."""

    def probe_path(self, handle: PeerHandle, payload: bytes, octets: int) -> int:
        """Encrypt as much of `payload` as an outer IP packet of `octets` bytes holds, and send it whole.

        Neither this host nor a router may cut it (DF). Returns the bytes of the outer packet; 0: the link
        here takes none so large. What is not sent for another reason counts as lost on the way: no key, a
        full socket, a TCP connection, a peer with `fragment`.
        """

    def use_path_mtu(self, handle: PeerHandle, octets: int) -> None:
        """Fit what goes to the peer to outer packets of `octets` bytes; 0: to `wan_mtu`. Until it floats."""

    def event_fd(self) -> int:
        """A descriptor that is readable while events wait; it stays the data plane's."""

    def poll_events(self, limit: int = 256) -> list[DataplaneEvent]:
        """Take up to `limit` events, oldest first; never blocks. `ControlReceived` come behind the others."""

    def snapshot(self) -> DataplaneSnapshot:
        """All figures now."""

    def fdb(self) -> list[FdbEntry]:
        """All stations that have not aged: a copy of the whole table. Programs use `station_events`."""

    def find_station(self, station: Station) -> FdbEntry | None:
        """Where a station is; None if it is unknown or has aged."""

    def install_station(self, station: Station, handle: PeerHandle | None, *, is_static: bool) -> None:
        """Put a station behind a peer (None: behind the TAP), as if it had just been heard there.

        It replaces what was known of the station. A static one neither ages nor moves: frames with its
        address from elsewhere are dropped (`loop_guard`). It goes with its peer or by `remove_station`.
        It counts towards `fdb_capacity`, but no peer's limit applies.

        Raises:
            DataplaneError: `unknown_peer`; `bad_station`: a group address, all zero, not 6 bytes, or a
                VLAN other than 0; `fdb_full`: there is no room for a new one.
        """

    def remove_station(self, station: Station) -> None:
        """Forget a station, installed or learned; unknown ones are ignored (it may have aged)."""

    def station_events(self, after: int) -> StationEvents:
        """Changes of the FDB since the call that returned `after` as `next` (0: since the start).

        The latest STATION_EVENTS_KEPT are kept, for however many readers; reading takes nothing away.
        """
