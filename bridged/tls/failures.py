"""Turns OpenSSL's error texts into `TlsError`: a handshake outcome, and a sentence for people.

Pure.
"""

from __future__ import annotations

from typing import Any, Final

from bridged.errors import TlsError

# Part of OpenSSL's reason text, outcome, sentence. The first row that matches counts.
_ROWS: Final = (
    ("alert certificate expired", "certificate_expired", "the peer says that our certificate has expired"),
    ("alert certificate revoked", "certificate_revoked", "the peer says that our certificate was revoked"),
    (
        "alert unknown ca",
        "certificate_rejected",
        "the peer rejected our certificate: its `ca` does not contain the CA that signed it; install "
        "our CA there",
    ),
    (
        "alert bad certificate",
        "certificate_rejected",
        "the peer refuses our certificate; its log says why",
    ),
    (
        "alert certificate unknown",
        "certificate_rejected",
        "the peer refuses our certificate (name, usage or fingerprint); its log says why",
    ),
    (
        "alert unsupported certificate",
        "certificate_rejected",
        "the peer refuses our certificate for this role; it needs the extended key usage of our role",
    ),
    (
        # OpenSSL sends this if the application's own rules refuse a certificate; also OpenVPN's.
        "alert internal error",
        "certificate_rejected",
        "the peer refuses our certificate (name, usage or fingerprint); its log says why",
    ),
    ("alert certificate required", "certificate_rejected", "the peer asks for a certificate and got none"),
    ("alert access denied", "certificate_rejected", "the peer refuses our certificate; its log says why"),
    ("peer did not return a certificate", "certificate_rejected", "the peer sent no certificate"),
    (
        "alert protocol version",
        "version_mismatch",
        "the peer refuses our TLS versions; compare `tls.version_min` and `tls.version_max` of both ends",
    ),
    (
        "unsupported protocol",
        "version_mismatch",
        "the peer offers no TLS version that we allow; compare `tls.version_min` and `tls.version_max`",
    ),
    (
        "no protocols available",
        "version_mismatch",
        "no TLS version is left between `tls.version_min` and `tls.version_max`",
    ),
    ("no shared cipher", "tls_failed", "no TLS cipher suite in common"),
    ("alert handshake failure", "tls_failed", "the peer found no TLS cipher suite or group in common"),
    ("no suitable key share", "tls_failed", "no TLS key group in common"),
)


def failure_of(error: BaseException) -> TlsError:
    """The `TlsError` for an exception of the TLS library. Unknown texts become `tls_failed`."""
    reason = _reason(error)
    lowered = reason.lower()
    for piece, code, sentence in _ROWS:
        if piece in lowered:
            return TlsError(code, f"{sentence} (TLS: {reason})")
    return TlsError("tls_failed", f"TLS failed: {reason}")


def _reason(error: BaseException) -> str:
    entries: Any = error.args[0] if error.args else ()
    if isinstance(entries, list | tuple):
        texts = [
            str(entry[2]) for entry in entries if isinstance(entry, tuple) and len(entry) > 2 and entry[2]
        ]
        if texts:
            return "; ".join(texts[:4])
    text = str(error).strip()
    return text if text and text != "[]" else type(error).__name__
