"""What the peer may rely on is done before the datagram that tells it, however long the machine rests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bridged.addresses import Endpoint
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import slice_keys
from bridged.protocol.role import Role
from bridged.protocol.session.events import (
    ExpectKey,
    InstallKey,
    RemoveKey,
    SendDatagram,
    SendPayload,
    UseKey,
)
from bridged.runtime.tunnels.link import PeerLink
from bridged.units import KeyId, MonotonicSeconds, PeerHandle
from tests.sim.noisy_wire import Noise, Simulation, renegotiations, settings


@pytest.mark.parametrize("use_exporter", [True, False], ids=["exporter", "prf"])
@pytest.mark.parametrize("seed", range(3))
def test_no_frame_meets_a_missing_key_on_a_busy_machine(seed: int, use_exporter: bool) -> None:
    common = {"reneg_seconds": 12.0, "use_exporter": use_exporter}
    sim = Simulation(
        settings(Role.CLIENT, "tls-crypt", **common),
        settings(Role.SERVER, "tls-crypt", **common),
        noise=Noise(delay=0.001001),
        seed=seed,
        lag=0.15,
        frame_seconds=0.01,
    )
    sim.run_until(60)
    assert sim.unopened == []
    assert renegotiations(sim.client).count("established") >= 3 and sim.frames > 8_000


@pytest.mark.parametrize("lag", [0.0, 0.1])
def test_no_frame_meets_a_missing_key_where_both_ends_renegotiate_often(lag: float) -> None:
    sim = Simulation(
        settings(Role.CLIENT, "tls-auth", reneg_seconds=7.0),
        settings(Role.SERVER, "tls-auth", reneg_seconds=5.0),
        noise=Noise(delay=0.001001),
        lag=lag,
        frame_seconds=0.01,
    )
    sim.run_until(60)
    assert sim.unopened == []
    assert sim.client.keys.keys() & sim.server.keys.keys()


def test_a_server_accepts_data_then_sends_the_options_then_seals() -> None:
    sim = Simulation(settings(Role.CLIENT, "tls-crypt"), settings(Role.SERVER, "tls-crypt"), admit=None)
    sim.run_until(5)
    session = sim.server.session
    assert session is not None
    session.admit(7, sim.now)
    kinds: list[str] = []
    while (event := session.poll_event()) is not None:
        kinds.append(type(event).__name__)
    assert kinds == ["InstallKey", "SendDatagram", "UseKey", "Established"]


@dataclass
class Recorder:
    """Stands in for data plane, tunnel and session: says what a script says, notes what is done."""

    script: list[Any]
    done: list[str] = field(default_factory=list)
    terms: None = None

    @property
    def conversation(self) -> Recorder:
        return self

    def poll_event(self) -> Any:
        return self.script.pop(0) if self.script else None

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.done.append(name)


def test_a_link_carries_out_keys_and_datagrams_in_the_order_of_the_session() -> None:
    key = slice_keys(bytes(range(256)), Role.CLIENT, Cipher.AES_256_GCM, KeyId(1))
    steps: list[tuple[Any, str]] = [
        (ExpectKey(KeyId(1)), "expect_key"),
        (InstallKey(key), "install_key"),
        (SendDatagram(b"options"), "send_control"),
        (UseKey(KeyId(1)), "use_key"),
        (SendDatagram(b"more"), "send_control"),
        (SendPayload(b"exit"), "send_payload"),
        (RemoveKey(KeyId(0)), "remove_key"),
        (SendDatagram(b"last"), "send_control"),
    ]
    recorder: Any = Recorder([event for event, _ in steps])
    link = PeerLink(
        recorder,
        PeerHandle(1),
        Endpoint("192.0.2.1", 1),
        recorder,
        recorder,
        lambda: MonotonicSeconds(0.0),
    )
    link.is_attached = True
    link.pump()
    assert recorder.done == [*(step for _, step in steps), "handle_settled"]
