"""What TLS exports: the known answers, our TLS engine by the same rule, and the peer id of a point-to-point link."""

from __future__ import annotations

import hashlib
import hmac
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.negotiation import PeerInfo
from bridged.protocol.role import Role
from bridged.protocol.session.conversation_point_to_point import agree, own_peer_info
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.tls_session import TlsSummary
from bridged.tls.engine import PyOpenSslEngine
from bridged.units import UnixSeconds
from tests.unit.tls.tls_lab import make_lab
from tests.vectors.vector_files import data_frames, load, unit_cases


def by_tls_1_3(secret: bytes, label: str, length: int, digest: str) -> bytes:
    """RFC 8446, section 7.5, without context."""
    empty = hashlib.new(digest, b"").digest()
    return _expand(_expand(secret, label, empty, len(empty), digest), "exporter", empty, length, digest)


def _expand(secret: bytes, label: str, context: bytes, length: int, digest: str) -> bytes:
    """HKDF-Expand-Label."""
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + bytes((len(context),)) + context
    output = block = b""
    for number in range(1, 2 + length // len(secret)):
        block = hmac.digest(secret, block + info + bytes((number,)), digest)
        output += block
    return output[:length]


def by_tls_1_2(secret: bytes, label: str, randoms: bytes, length: int, digest: str) -> bytes:
    """RFC 5705, section 4, without context."""
    seed = label.encode() + randoms
    output, chained = b"", seed
    while len(output) < length:
        chained = hmac.digest(secret, chained, digest)
        output += hmac.digest(secret, chained + seed, digest)
    return output[:length]


def exported(case: dict[str, Any], length: int) -> bytes:
    if "exporter_secret" in case:
        return by_tls_1_3(bytes.fromhex(case["exporter_secret"]), case["label"], length, case["hash"])
    randoms = bytes.fromhex(case["client_random"] + case["server_random"])
    return by_tls_1_2(bytes.fromhex(case["master_secret"]), case["label"], randoms, length, case["hash"])


@pytest.mark.parametrize("case", unit_cases()["tls_exporter"])
def test_exported_keys_follow_from_the_secrets_of_the_session(case: dict[str, Any]) -> None:
    assert exported(case, case["length"]).hex() == case["output"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_our_tls_engine_exports_by_the_rule_of_the_known_answers(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    class Telling(SSL.Context):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.set_keylog_callback(lambda _, line: lines.append(line.decode()))

    monkeypatch.setattr(SSL, "Context", Telling)
    lab = make_lab()
    pair = lab.pair(lab.settings("client", version_min=version, version_max=version))
    pair.run()
    assert isinstance(pair.client, PyOpenSslEngine)
    connection = pair.client._connection
    label = "EXPORTER-OpenVPN-datakeys"
    digest = "sha384" if "384" in pair.client.summary().cipher else "sha256"
    if version == "1.3":
        secrets = [bytes.fromhex(line.split()[2]) for line in lines if line.startswith("EXPORTER_SECRET ")]
        wanted = by_tls_1_3(secrets[0], label, 256, digest)
    else:
        randoms = connection.client_random() + connection.server_random()
        wanted = by_tls_1_2(connection.master_key(), label, randoms, 256, digest)
    assert pair.client.export(label, 256) == pair.server.export(label, 256) == wanted


class _Engine:
    """Exports by the secret of a captured session."""

    def __init__(self, case: dict[str, Any]) -> None:
        self._case = case

    def export(self, label: str, length: int) -> bytes:
        assert label == self._case["label"]
        return exported(self._case, length)

    def summary(self) -> TlsSummary:
        return TlsSummary("TLSv1.3", "", None, "peer", "", UnixSeconds(0))


@pytest.mark.parametrize("case", unit_cases()["p2p_peer_id"])
def test_both_ends_of_a_link_make_the_peer_id_of_what_tls_exports(case: dict[str, Any]) -> None:
    scenario = case["source"]["scenario"]
    assert exported(case, 3).hex() == case["output"]
    for role in Role:
        settings = SessionSettings(role=role, ciphers=(Cipher.AES_256_GCM,), is_point_to_point=True)
        theirs = PeerInfo.parse(own_peer_info(settings).serialize())
        core, key = SimpleNamespace(settings=settings), SimpleNamespace(engine=_Engine(case))
        terms = agree(core, key, theirs, "", Cipher.AES_256_GCM)  # type: ignore[arg-type]
        assert terms.transmit_peer_id == case["peer_id"]
        assert terms.key_derivation == "exporter"
    assert load(scenario, "secrets")["data_channel"]["key_derivation"] == "tls-ekm"
    assert {frame["peer_id"] for frame in data_frames(scenario)} == {case["peer_id"]}
