"""The sockets of a client's calls: one for each, or one for all where `local` fixes the port.

Source: docs/decisions/0044.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane
from bridged.endings import take_every_step
from bridged.errors import DataplaneError
from bridged.runtime.client.call_socket import CallSocket, OnDatagram
from bridged.runtime.client.call_stream import CallStream, OnStreamReady, Through
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.mss import TcpSizes
from bridged.runtime.tunnels.proxy import ProxySettings
from bridged.units import PeerHandle


class CallSockets:
    """Opens sockets for calls, lends them to the data plane, and closes each when its link has ended."""

    def __init__(
        self,
        local: Endpoint | None,
        dataplane: DataPlane,
        on_datagram: OnDatagram,
        on_refused: Callable[[Through, Endpoint, str], None],
        subject: str,
        proxy: ProxySettings | None = None,
        on_ready: OnStreamReady = lambda stream: None,
    ) -> None:
        self._local = local
        self._on_ready = on_ready
        self._proxy = proxy
        self._dataplane = dataplane
        self._on_datagram = on_datagram
        self._on_refused = on_refused
        self._subject = subject
        self._of: dict[PeerHandle, Through] = {}
        self._fixed: CallSocket | None = None
        self._borrower: PeerHandle | None = None
        """The link whose socket the data plane has."""

    def is_fixed(self, endpoint: Endpoint) -> bool:
        """Whether a server there can have one call at a time: all share a socket, or it is by TCP."""
        return self._fixed is not None or endpoint.transport == "tcp"

    def start(self) -> None:
        """Bind `local`, where there is one.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if self._local is not None:
            self._fixed = self._open(self._local)

    def open_for(self, endpoint: Endpoint) -> Through:
        """A socket or connection that can call `endpoint`.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if endpoint.transport == "tcp":
            return CallStream(
                endpoint,
                self._local,
                self._dataplane,
                self._on_refused,
                self._subject,
                self._proxy,
                self._on_ready,
            )
        if self._fixed is None:
            return self._open(endpoint)
        if not self._fixed.can_reach(endpoint):
            text = f"cannot be reached from {self._local}: change or remove `local`"
            raise DataplaneError("bind_failed", text)
        return self._fixed

    def register(self, link: PeerLink, through: Through) -> None:
        """This socket belongs to the link until `release`."""
        self._of[link.handle] = through

    def of(self, handle: PeerHandle) -> Through | None:
        return self._of.get(handle)

    def release(self, handle: PeerHandle) -> None:
        """The link has ended. Harmless for one that is not known."""
        through = self._of.pop(handle, None)
        if through is None:
            return
        # Also where the data plane refused the link after it got the socket.
        self.reclaim(handle, through)
        self.discard(through)

    def discard(self, through: Through) -> None:
        """Close a socket that belongs to no link."""
        if through is not self._fixed:
            through.close()

    def close(self) -> None:
        fixed = [] if self._fixed is None else [self._fixed.close]
        take_every_step([*(partial(self.release, handle) for handle in self._of), *fixed])

    def lend(self, handle: PeerHandle, through: Through, sizes: TcpSizes | None) -> None:
        """The link becomes a peer: the data plane gets the socket, and fits TCP to the server's `sizes`."""
        descriptor = through.lend()
        if descriptor is not None:
            self._borrower = handle
            self._dataplane.use_socket(descriptor)
        if sizes is not None:
            self._dataplane.use_sizes(sizes.wan_mtu, sizes.mss_limit)

    def reclaim(self, handle: PeerHandle, through: Through) -> None:
        """The link is no peer any more. Harmless where the data plane has another socket by now."""
        if self._borrower == handle:
            self._borrower = None
            self._dataplane.use_socket(None)
            through.reclaim()

    def _open(self, endpoint: Endpoint) -> CallSocket:
        family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        return CallSocket(family, self._local, self._on_datagram, self._on_refused, self._subject)


class CallPath:
    """The `ControlPath` of one call: its socket, which the data plane borrows while the link is its peer.

    `sizes`: what TCP is fitted to for this server; None: as configured for the tunnel.
    `before_lending` hears of the link that is about to become the peer.
    """

    def __init__(
        self,
        sockets: CallSockets,
        through: Through,
        sizes: TcpSizes | None,
        before_lending: Callable[[PeerLink], None],
    ) -> None:
        self._sockets = sockets
        self._through = through
        self._sizes = sizes
        self._before_lending = before_lending

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        self._through.send_control(datagram, destination)

    def before_attach(self, link: PeerLink) -> None:
        self._before_lending(link)
        self._sockets.lend(link.handle, self._through, self._sizes)

    def after_detach(self, link: PeerLink) -> None:
        self._sockets.reclaim(link.handle, self._through)
