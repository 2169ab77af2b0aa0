"""The TCP connection through which a client calls a server; the data plane has it as soon as it stands.

Source: docs/protocol/control.md#1-1. Asyncio.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane
from bridged.errors import DataplaneError
from bridged.runtime.client.call_socket import CallSocket
from bridged.runtime.tunnels.proxy import ProxyFailed, ProxySettings
from bridged.socket_addresses import to_sockaddr
from bridged.supervision import SUPERVISOR

_WORDS: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ETIMEDOUT: "no answer to TCP",
    errno.ECONNRESET: "the connection was broken off",
}

OnStreamRefused = Callable[["CallStream", Endpoint, str], None]
OnStreamReady = Callable[["CallStream"], None]


class CallStream:
    """A connection to `endpoint`, from an address of `local` if there is one (its port is for UDP).

    `proxy`: through this one; `local` does not matter then.

    What is sent before it stands is kept: the newest packet, which repeats the others. `on_refused` gets
    endpoint and reason if it cannot be made, `on_ready` hears when the data plane has it.

    Raises:
        DataplaneError: `bind_failed`.
    """

    is_fixed = True
    """There is one connection to an endpoint at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        local: Endpoint | None,
        dataplane: DataPlane,
        on_refused: OnStreamRefused,
        subject: str,
        proxy: ProxySettings | None = None,
        on_ready: OnStreamReady = lambda stream: None,
    ) -> None:
        self.endpoint = endpoint
        self._on_ready = on_ready
        self._dataplane = dataplane
        self._on_refused = on_refused
        self._subject = subject
        self._unsent: bytes | None = None
        self._is_adopted = False
        self._is_closed = False
        self._socket: socket.socket | None = None
        if proxy is None:
            self._socket = self._open(local)
            self._connect(self._socket)
        else:
            self._dial(proxy)

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        """Send, or keep it until the connection stands."""
        if self._is_adopted:
            self._dataplane.send_control(datagram, destination)
        elif not self._is_closed:
            self._unsent = datagram

    def lend(self) -> None:
        """The data plane has it already."""

    def reclaim(self) -> None:
        """The data plane keeps it until `close`."""

    def close(self) -> None:
        """Idempotent. What was sent before still leaves."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_adopted:
            self._dataplane.close_stream(self.endpoint)
        elif self._socket is not None:
            self._stop_waiting(self._socket)
            self._socket.close()

    # --- inside -----------------------------------------------------------------------------------

    def _open(self, local: Endpoint | None) -> socket.socket:
        family = socket.AF_INET6 if self.endpoint.is_ipv6 else socket.AF_INET
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise DataplaneError("bind_failed", f"no TCP socket: {error.strerror}") from None
        try:
            if local is not None and local.is_ipv6 == self.endpoint.is_ipv6:
                made.bind(to_sockaddr(Endpoint(local.host, 0), family))
        except OSError as error:
            made.close()
            raise DataplaneError("bind_failed", f"cannot bind TCP {local}: {error.strerror}") from None
        return made

    def _dial(self, proxy: ProxySettings) -> None:
        loop = asyncio.get_running_loop()
        take = SUPERVISOR.guard("call_stream", self._take_dialled, self._subject)

        def dial() -> None:
            made: socket.socket | str
            try:
                made = proxy.dial(self.endpoint)
            except ProxyFailed as error:
                made = str(error)
            try:
                loop.call_soon_threadsafe(take, made)
            except RuntimeError:  # the loop has ended
                if isinstance(made, socket.socket):
                    made.close()

        SUPERVISOR.thread("proxy", dial, self._subject)

    def _take_dialled(self, made: socket.socket | str) -> None:
        if isinstance(made, str):
            if not self._is_closed:
                self._on_refused(self, self.endpoint, made)
        elif self._is_closed:
            made.close()
        else:
            self._adopt(made)

    def _connect(self, made: socket.socket) -> None:
        try:
            number = made.connect_ex(to_sockaddr(self.endpoint, made.family))
        except OSError as error:
            number = error.errno or errno.EIO
        step = SUPERVISOR.guard("call_stream", self._take_result, self._subject)
        loop = asyncio.get_running_loop()
        if number == errno.EINPROGRESS:
            loop.add_writer(made.fileno(), step)
        else:
            # The caller does not know this call yet.
            loop.call_soon(step, number)

    def _take_result(self, number: int | None = None) -> None:
        made = self._socket
        if self._is_closed or self._is_adopted or made is None:
            return
        self._stop_waiting(made)
        if number is None:
            number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            words = _WORDS.get(number) or os.strerror(number).lower()
            self._on_refused(self, self.endpoint, words)
            return
        self._adopt(made)

    def _adopt(self, made: socket.socket) -> None:
        """The connection stands: the data plane carries it from now on."""
        try:
            self._dataplane.adopt_stream(made.fileno(), self.endpoint, b"")
        except DataplaneError as error:
            self._on_refused(self, self.endpoint, error.message)
            return
        finally:
            made.close()
        self._is_adopted = True
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            self._dataplane.send_control(unsent, self.endpoint)
        self._on_ready(self)

    @staticmethod
    def _stop_waiting(made: socket.socket) -> None:
        if made.fileno() >= 0:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(made.fileno())


Through: TypeAlias = CallSocket | CallStream
"""What carries one call."""
