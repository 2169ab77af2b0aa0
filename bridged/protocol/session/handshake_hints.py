"""What an operator should look at when a handshake makes no progress.

Pure: texts only.
"""

from __future__ import annotations

from typing import Final

from bridged.protocol.session.key_state import KeyPhase, KeyState

_HINTS: Final = {
    KeyPhase.PRE_START: "no answer: compare address, port, firewall, and the tls-auth or tls-crypt key",
    KeyPhase.START: "the other end went silent in the TLS handshake: it may refuse our certificate (its log "
    "says why), or large packets are lost",
    # OpenVPN drops a client whose certificate it refuses without sending its TLS alert.
    KeyPhase.EXCHANGE: "the other end went silent after TLS: it may refuse our certificate; its log says why",
}
_SILENT_AFTER_TLS: Final = (
    "the server accepted our certificate, then went silent: it may ask for a user name and password "
    "(`auth-user-pass-verify`): set `login`; its log says why"
)


def hint(key: KeyState) -> str:
    """What to look at if the peer says nothing more in this phase; empty once the negotiation is over."""
    if key.phase is KeyPhase.EXCHANGE and key.is_tls_acknowledged:
        return _SILENT_AFTER_TLS
    return _HINTS.get(key.phase, "")
