"""Control-channel wraps: directions, sizes, refusals, replay."""

from __future__ import annotations

import pytest

from bridged.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlHeader, Opcode
from bridged.protocol.packets.wrap import (
    NoWrap,
    OpenedControl,
    TlsAuthKeys,
    TlsCryptKeys,
    WrapChannel,
    WrapKeys,
    dynamic_tls_crypt,
    first_numbers,
)
from bridged.protocol.packets.wrap.tls_crypt_v2 import EARLY_PACKET_ID
from bridged.protocol.role import Role
from bridged.units import KeyId

KEY = StaticKey(bytes(range(256)))
OTHER = StaticKey(bytes(256))
HEADER = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), b"SESSION1")
BODY = b"\0\0\0\0\0"
CLIENT, SERVER = TlsCryptKeys(KEY, Role.CLIENT), TlsCryptKeys(KEY, Role.SERVER)


def refused(keys: WrapKeys, datagram: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as error:
        keys.open(datagram)
    return error.value.code


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        (NoWrap(), 14),
        (TlsAuthKeys(KEY, None), 42),
        (TlsAuthKeys(KEY, 1, "SHA256"), 54),
        (TlsAuthKeys(KEY, 0, "SHA512"), 86),
        (CLIENT, 54),
    ],
)
def test_the_first_packet_has_the_size_of_the_specification(keys: WrapKeys, size: int) -> None:
    packet = keys.seal(HEADER, 1, 2, BODY)
    assert len(packet) == size == 9 + keys.overhead + len(BODY)
    assert packet.startswith(b"\x38SESSION1")


@pytest.mark.parametrize(("ours", "peers"), [(None, None), (0, 1), (1, 0)])
def test_tls_auth_directions_that_fit_open_each_other(ours: int | None, peers: int | None) -> None:
    packet = TlsAuthKeys(KEY, ours, "sha-256").seal(HEADER, 7, 9, BODY)
    opened = TlsAuthKeys(KEY, peers, "SHA256").open(packet)
    assert (opened.header, opened.packet_id, opened.packet_time, opened.body) == (HEADER, 7, 9, BODY)


@pytest.mark.parametrize(("ours", "peers"), [(None, 0), (1, None), (0, 0), (1, 1)])
def test_tls_auth_directions_that_do_not_fit_are_a_wrap_mismatch(ours: int | None, peers: int | None) -> None:
    assert (
        refused(TlsAuthKeys(KEY, peers), TlsAuthKeys(KEY, ours).seal(HEADER, 1, 1, BODY)) == "wrap_mismatch"
    )


def test_another_digest_of_the_same_length_is_a_wrap_mismatch() -> None:
    packet = TlsAuthKeys(KEY, None, "SHA512").seal(HEADER, 1, 1, BODY + bytes(40))
    assert refused(TlsAuthKeys(KEY, None, "SHA1"), packet) == "wrap_mismatch"


def test_our_own_tls_crypt_packet_reflected_is_a_wrap_mismatch() -> None:
    assert refused(CLIENT, CLIENT.seal(HEADER, 1, 1, BODY)) == "wrap_mismatch"
    assert SERVER.open(CLIENT.seal(HEADER, 1, 1, BODY)).body == BODY


def test_another_key_is_a_wrap_mismatch() -> None:
    assert refused(TlsCryptKeys(OTHER, Role.SERVER), CLIENT.seal(HEADER, 1, 1, BODY)) == "wrap_mismatch"
    assert (
        refused(TlsAuthKeys(OTHER, None), TlsAuthKeys(KEY, None).seal(HEADER, 1, 1, BODY)) == "wrap_mismatch"
    )


@pytest.mark.parametrize(("keys", "least"), [(TlsAuthKeys(KEY, None), 37), (CLIENT, 49)])
def test_a_packet_too_short_for_the_wrap_is_told_from_a_forged_one(keys: WrapKeys, least: int) -> None:
    assert refused(keys, b"\x38SESSION1" + bytes(least - 10)) == "short_packet"
    assert refused(keys, b"\x38SESSION1" + bytes(least - 9)) == "wrap_mismatch"


def test_unknown_direction_and_digest_are_refused() -> None:
    for make in (lambda: TlsAuthKeys(KEY, 2), lambda: TlsAuthKeys(KEY, None, "MD4")):
        with pytest.raises(ConfigurationError):
            make()


def test_no_key_shows_in_repr() -> None:
    for keys in (CLIENT, TlsAuthKeys(KEY, 1)):
        assert "\\x" not in repr(keys) and "0001" not in repr(keys)


def test_dynamic_tls_crypt_is_the_exporter_xor_the_wrap_key() -> None:
    exported = bytes(reversed(range(256)))
    both = StaticKey(bytes(a ^ b for a, b in zip(exported, KEY.octets, strict=True)))
    packet = dynamic_tls_crypt(KEY, exported, Role.CLIENT).seal(HEADER, 1, 1, BODY)
    assert TlsCryptKeys(both, Role.SERVER).open(packet).body == BODY
    unwrapped = dynamic_tls_crypt(None, exported, Role.CLIENT).seal(HEADER, 1, 1, BODY)
    assert TlsCryptKeys(StaticKey(exported), Role.SERVER).open(unwrapped).body == BODY
    with pytest.raises(LocalProtocolError):
        dynamic_tls_crypt(KEY, exported[:-1], Role.CLIENT)


def channel_pair() -> tuple[WrapChannel, WrapChannel]:
    return WrapChannel(CLIENT, 1000), WrapChannel(SERVER, 1000)


def unwrap(receiver: WrapChannel, packet: bytes, now: float) -> OpenedControl:
    opened = receiver.keys.open(packet)
    receiver.record(opened, now)
    return opened


def replayed(receiver: WrapChannel, packet: bytes, now: float) -> str | None:
    try:
        unwrap(receiver, packet, now)
    except RemoteProtocolError as error:
        return error.code
    return None


def test_packet_ids_count_from_one_and_a_repeated_packet_is_a_replay() -> None:
    sender, receiver = channel_pair()
    first, second = sender.wrap(HEADER, BODY), sender.wrap(HEADER, BODY)
    assert unwrap(receiver, second, 0.0).packet_id == 2
    assert unwrap(receiver, first, 0.0).packet_id == 1
    assert replayed(receiver, first, 0.0) == replayed(receiver, second, 0.0) == "replay"


def test_a_counter_continues_behind_a_stateless_answer() -> None:
    receiver = WrapChannel(SERVER, 0)
    assert unwrap(receiver, WrapChannel(CLIENT, 5, 2).wrap(HEADER, BODY), 0.0).packet_id == 2


def test_packet_id_zero_is_never_valid() -> None:
    _, receiver = channel_pair()
    assert replayed(receiver, CLIENT.seal(HEADER, 0, 1000, BODY), 0.0) == "replay"


def test_ids_within_the_last_64_are_taken_late_and_others_are_not() -> None:
    sender, receiver = channel_pair()
    packets = [sender.wrap(HEADER, BODY) for _ in range(66)]
    assert replayed(receiver, packets[65], 0.0) is None
    assert replayed(receiver, packets[2], 0.0) is None
    assert replayed(receiver, packets[1], 0.0) == "replay_too_old"


def test_a_packet_more_than_15_seconds_late_is_too_old() -> None:
    sender, receiver = channel_pair()
    packets = [sender.wrap(HEADER, BODY) for _ in range(5)]
    assert replayed(receiver, packets[3], 100.0) is None
    assert replayed(receiver, packets[4], 110.0) is None
    assert replayed(receiver, packets[0], 115.0) is None
    assert replayed(receiver, packets[1], 115.5) == "replay_too_old"


def test_lateness_counts_from_when_the_gap_was_seen() -> None:
    sender, receiver = channel_pair()
    packets = [sender.wrap(HEADER, BODY) for _ in range(4)]
    assert replayed(receiver, packets[0], 0.0) is None
    assert replayed(receiver, packets[3], 100.0) is None
    assert replayed(receiver, packets[1], 101.0) is None


def test_a_greater_time_restarts_the_window_and_a_smaller_one_is_too_old() -> None:
    _, receiver = channel_pair()
    assert replayed(receiver, CLIENT.seal(HEADER, 50, 1000, BODY), 0.0) is None
    assert replayed(receiver, CLIENT.seal(HEADER, 1, 1001, BODY), 0.0) is None
    assert replayed(receiver, CLIENT.seal(HEADER, 51, 1000, BODY), 0.0) == "replay_too_old"


def test_a_forged_packet_leaves_the_replay_window_alone() -> None:
    sender, receiver = channel_pair()
    good = sender.wrap(HEADER, BODY)
    forged = good[:-1] + bytes((good[-1] ^ 1,))
    assert replayed(receiver, forged, 0.0) == "wrap_mismatch"
    assert replayed(receiver, good, 0.0) is None


def test_without_wrap_there_is_no_replay_check() -> None:
    sender, receiver = WrapChannel(NoWrap(), 0), WrapChannel(NoWrap(), 0)
    packet = sender.wrap(HEADER, BODY)
    assert replayed(receiver, packet, 0.0) is replayed(receiver, packet, 0.0) is None
    assert packet == sender.wrap(HEADER, BODY)


def test_a_used_up_counter_is_our_bug() -> None:
    sender = WrapChannel(CLIENT, 0, 0xFFFFFFFF)
    sender.wrap(HEADER, BODY)
    with pytest.raises(LocalProtocolError):
        sender.wrap(HEADER, BODY)


def test_one_window_takes_all_sessions_that_begin_within_a_second() -> None:
    moments = [
        1_800_000_000.0,
        1_800_000_000.000_002,
        1_800_000_000.4,
        1_800_000_000.999_999,
        1_800_000_001.0,
    ]
    receiver = WrapChannel(SERVER, 0)
    for moment in moments:
        channel = WrapChannel(CLIENT, *first_numbers(moment, 1))
        for _ in range(5):
            unwrap(receiver, channel.wrap(HEADER, BODY), 0.0)


def test_early_negotiation_is_seen_in_the_packet_id_of_every_moment() -> None:
    for moment in (1_800_000_000.0, 1_800_000_000.999_999):
        _, packet_id = first_numbers(moment, EARLY_PACKET_ID)
        assert packet_id >> 24 == (packet_id + 1000) >> 24 == EARLY_PACKET_ID >> 24
