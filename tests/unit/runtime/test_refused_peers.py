"""Who was refused lately: bounded, certain before it is said, forgotten when it is let in."""

from __future__ import annotations

from bridged.addresses import Endpoint
from bridged.protocol.strangers.stranger import STATIC_KEY, WRAP_MISMATCH, Stranger
from bridged.runtime.tunnels.refused import REFUSED_MAX, SHOWN_SECONDS, RefusedPeers
from bridged.units import UnixSeconds

NOW = UnixSeconds(1_800_000_000.0)
HERE = Endpoint("192.0.2.1", 40000)
WRONG_KEY = Stranger(WRAP_MISMATCH, "compare the key")
STATIC = Stranger(STATIC_KEY, "it needs certificates")


def test_one_odd_packet_is_noise_and_the_second_is_said() -> None:
    refused = RefusedPeers()
    assert refused.note_stranger(HERE, WRONG_KEY, b"x", NOW) is None
    assert refused.statuses(NOW) == ()
    told = refused.note_stranger(Endpoint(HERE.host, 40001), WRONG_KEY, b"x", NOW)
    assert told is not None and told.reason == "wrap_mismatch" and told.times == 2
    assert told.endpoint == "192.0.2.1:40001" and told.detail == "compare the key"
    assert refused.statuses(NOW) == (told,)


def test_a_peer_that_goes_on_is_said_ever_more_rarely() -> None:
    refused = RefusedPeers()
    said = [refused.note_stranger(HERE, WRONG_KEY, b"x", NOW) is not None for _ in range(3000)]
    assert [number + 1 for number, one in enumerate(said) if one] == [2, 20, 200, 2000]


def test_a_static_key_is_said_only_where_session_ids_change() -> None:
    refused = RefusedPeers()
    assert not any(refused.note_stranger(HERE, STATIC, b"\x20SESSION1" + bytes(60), NOW) for _ in range(50))
    packets = [bytes((0x20, number)) + bytes(60) for number in range(4)]
    told = [refused.note_stranger(Endpoint("192.0.2.2", 1), STATIC, packet, NOW) for packet in packets]
    assert [one is not None for one in told] == [False, False, True, False]


def test_strangers_without_end_are_bounded_and_the_newest_stay() -> None:
    refused = RefusedPeers()
    for number in range(10 * REFUSED_MAX):
        source = Endpoint(f"10.0.{number // 250}.{number % 250}", 1)
        refused.note_stranger(source, WRONG_KEY, b"x", NOW)
        refused.note_stranger(source, WRONG_KEY, b"x", NOW)
    shown = refused.statuses(NOW)
    assert len(shown) == REFUSED_MAX
    assert shown[0].endpoint == str(source)


def test_a_refused_certificate_is_shown_for_an_hour_or_until_its_peer_is_let_in() -> None:
    refused = RefusedPeers()
    refused.note_handshake(HERE, "certificate_rejected", "CN=x", NOW)
    assert [one.detail for one in refused.statuses(NOW)] == ["CN=x"]
    assert refused.statuses(UnixSeconds(NOW + SHOWN_SECONDS + 1)) == ()
    refused.forget(Endpoint(HERE.host, 5))
    assert refused.statuses(NOW) == ()
