"""The sockets of a client's calls: one for each, or one for all where `local` fixes the port.

Source: docs/decisions/0044.
"""

from __future__ import annotations

import socket

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane
from bridged.errors import DataplaneError
from bridged.runtime.client.call_socket import CallSocket, OnDatagram, OnRefused
from bridged.runtime.tunnels.link import PeerLink
from bridged.units import PeerHandle


class CallSockets:
    """Opens sockets for links, lends them to the data plane, and closes each when its link has ended."""

    def __init__(
        self,
        local: Endpoint | None,
        dataplane: DataPlane,
        on_datagram: OnDatagram,
        on_refused: OnRefused,
        subject: str,
    ) -> None:
        self._local = local
        self._dataplane = dataplane
        self._on_datagram = on_datagram
        self._on_refused = on_refused
        self._subject = subject
        self._of: dict[PeerHandle, CallSocket] = {}
        self._fixed: CallSocket | None = None
        self._borrower: PeerHandle | None = None
        """The link for which the data plane has a socket."""

    @property
    def is_fixed(self) -> bool:
        """All calls share one socket: at most one of them for each server."""
        return self._fixed is not None

    def start(self) -> None:
        """Bind `local`, where there is one.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if self._local is not None:
            self._fixed = self._open(self._local)

    def open_for(self, endpoint: Endpoint) -> CallSocket:
        """A socket that can call `endpoint`.

        Raises:
            DataplaneError: `bind_failed`: none can be had.
        """
        if self._fixed is None:
            return self._open(endpoint)
        if not self._fixed.can_reach(endpoint):
            raise DataplaneError("bind_failed", f"cannot be reached from {self._local}")
        return self._fixed

    def give(self, link: PeerLink, through: CallSocket) -> None:
        """The link speaks through this socket, before, while and after it is a peer of the data plane."""
        self._of[link.handle] = through
        link.carrier = through
        link.before_attach = lambda: self._lend(link.handle, through)
        link.after_detach = lambda: self._take_back(link.handle, through)

    def of(self, handle: PeerHandle) -> CallSocket | None:
        return self._of.get(handle)

    def release(self, handle: PeerHandle) -> None:
        """The link has ended. Harmless for one that is not known."""
        through = self._of.pop(handle, None)
        if through is None:
            return
        # Also of a link that the data plane did not take in after all.
        self._take_back(handle, through)
        self.discard(through)

    def discard(self, through: CallSocket) -> None:
        """Close one that no link has got."""
        if through is not self._fixed:
            through.close()

    def close(self) -> None:
        for handle in list(self._of):
            self.release(handle)
        if self._fixed is not None:
            self._fixed.close()

    def _lend(self, handle: PeerHandle, through: CallSocket) -> None:
        self._borrower = handle
        self._dataplane.use_socket(through.lend())

    def _take_back(self, handle: PeerHandle, through: CallSocket) -> None:
        if self._borrower == handle:
            self._borrower = None
            self._dataplane.use_socket(None)
            through.take_back()

    def _open(self, endpoint: Endpoint) -> CallSocket:
        family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
        return CallSocket(family, self._local, self._on_datagram, self._on_refused, self._subject)
