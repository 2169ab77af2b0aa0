"""The way to a server through an HTTP or SOCKS5 proxy.

Source: docs/protocol/control.md#9 (HTTP proxy, SOCKS5); the library python-socks speaks both. It waits, so
each dial has a thread of its own.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final, Literal

from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.sync import Proxy

from bridged.addresses import Endpoint

DIAL_SECONDS: Final = 10.0
CREDENTIALS_OCTETS_MAX: Final = 4096
_TYPES: Final = {"http": ProxyType.HTTP, "socks5": ProxyType.SOCKS5}


class ProxyFailed(Exception):
    """The proxy made no connection; the text says why."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Where the proxy is, and who we are to it (None: it does not ask)."""

    kind: Literal["http", "socks5"]
    where: Endpoint
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def dial(self, server: Endpoint) -> socket.socket:
        """A connection to `server`; takes DIAL_SECONDS at most.

        Raises:
            ProxyFailed
        """
        proxy = Proxy(
            proxy_type=_TYPES[self.kind],
            host=self.where.host,
            port=self.where.port,
            username=self.user,
            password=self.password,
        )
        try:
            return proxy.connect(server.host, server.port, timeout=DIAL_SECONDS)
        except ProxyTimeoutError:
            raise ProxyFailed(f"proxy {self.where}: no answer in time") from None
        except ProxyConnectionError as error:
            raise ProxyFailed(f"proxy {self.where}: {error.strerror or error}") from None
        except (ProxyError, OSError) as error:
            # Its text is the proxy's: status or reason, one line.
            raise ProxyFailed(f"proxy {self.where}: {_plain(str(error))}") from None


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)[:200]
