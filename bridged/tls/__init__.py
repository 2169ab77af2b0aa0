"""TLS sessions on memory buffers: context, engine, our identity, and rules for the peer's certificate."""

from bridged.tls.context import TlsSettings, make_engine_factory
from bridged.tls.engine import PyOpenSslEngine
from bridged.tls.identity import certificate_not_after, read_pem, read_private_pem
from bridged.tls.verification import peer_usage

__all__ = [
    "PyOpenSslEngine",
    "TlsSettings",
    "certificate_not_after",
    "make_engine_factory",
    "peer_usage",
    "read_pem",
    "read_private_pem",
]
