"""Windows of the reliability layer."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.session.reliable import ReceiveVerdict, ReceiveWindow, SendWindow, WindowFull


def ids(window: SendWindow, now: float) -> list[int]:
    return [packet.message_id for packet in window.due(now)]


def filled(count: int = 6, now: float = 0.0) -> SendWindow:
    window = SendWindow()
    for number in range(count):
        assert window.push(Opcode.CONTROL_V1, bytes((number,)), now) == number
    return window


def test_six_packets_may_be_outstanding() -> None:
    window = filled()
    assert not window.has_room
    with pytest.raises(WindowFull) as error:
        window.push(Opcode.CONTROL_V1, b"", 0.0)
    assert error.value.code == "window_full"
    window.acknowledge([3], 0.1)
    assert not window.has_room, "the lowest unacknowledged id counts, not the number of packets"
    window.acknowledge([0], 0.1)
    assert window.has_room and window.oldest_message_id == 1


def test_retransmissions_back_off_2_4_8_16() -> None:
    window = SendWindow()
    window.push(Opcode.CONTROL_V1, b"x", 0.0)
    sent = [0.0]
    assert ids(window, 0.0) == [0]
    for _ in range(5):
        deadline = window.next_timeout()
        assert deadline is not None
        assert ids(window, deadline - 0.001) == []
        assert ids(window, deadline) == [0]
        sent.append(deadline)
    assert sent == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0]
    assert window.retransmissions == 5


def test_three_acks_for_later_packets_make_an_early_one_due_at_once() -> None:
    window = filled()
    assert ids(window, 0.0) == [0, 1, 2, 3, 4, 5]
    window.acknowledge([1, 2], 0.5)
    assert ids(window, 0.5) == []
    window.acknowledge([3], 0.6)
    assert ids(window, 0.6) == [0]
    window.acknowledge([4, 5], 0.7)
    assert ids(window, 0.7) == [], "the count starts again"


def test_repeated_and_unknown_acks_have_no_effect() -> None:
    window = filled()
    window.due(0.0)
    for _ in range(5):
        window.acknowledge([1, 1, 99, 4_000_000_000], 0.1)
    assert ids(window, 0.1) == []
    assert window.oldest_message_id == 0


def test_everything_acknowledged_leaves_nothing_due() -> None:
    window = filled()
    window.acknowledge(range(6), 1.0)
    assert window.is_empty and window.next_timeout() is None and window.due(1e9) == []


def test_pending_packets_go_at_once_when_the_peer_is_first_heard() -> None:
    window = filled(2)
    window.due(0.0)
    window.due(2.0)
    window.send_now(3.0)
    assert ids(window, 3.0) == [0, 1]
    assert window.next_timeout() == 5.0


def test_round_trip_is_measured_on_packets_sent_once_only() -> None:
    window = filled(2)
    window.due(0.0)
    window.acknowledge([1], 0.25)
    assert window.last_rtt == 0.25
    window.due(2.0)
    window.acknowledge([0], 2.1)
    assert window.last_rtt == 0.25


def test_retransmission_keeps_opcode_and_payload() -> None:
    window = SendWindow(tls_timeout=1.0, first_message_id=1)
    assert window.push(Opcode.SOFT_RESET_V1, b"", 0.0) == 1
    assert window.due(0.0) == window.due(1.0) != []


def test_acks_are_not_delivered_reliably() -> None:
    with pytest.raises(LocalProtocolError):
        SendWindow().push(Opcode.ACK_V1, b"", 0.0)


def receive(window: ReceiveWindow, message_id: int) -> ReceiveVerdict:
    return window.receive(message_id, Opcode.CONTROL_V1, bytes((message_id % 256,)))


def delivered(window: ReceiveWindow) -> list[int]:
    found = []
    while (packet := window.pop()) is not None:
        found.append(packet.message_id)
    return found


def test_packets_are_delivered_in_order_and_once() -> None:
    window = ReceiveWindow()
    assert receive(window, 1) is receive(window, 2) is ReceiveVerdict.STORED
    assert delivered(window) == []
    assert receive(window, 0) is ReceiveVerdict.STORED
    assert delivered(window) == [0, 1, 2]
    assert receive(window, 1) is ReceiveVerdict.DUPLICATE
    assert delivered(window) == []


def test_the_window_is_twelve_wide() -> None:
    window = ReceiveWindow(1)
    assert receive(window, 12) is ReceiveVerdict.STORED
    assert receive(window, 13) is ReceiveVerdict.OUTSIDE
    assert window.take_acks(8) == (12,)


def test_duplicates_are_acknowledged_again() -> None:
    window = ReceiveWindow()
    receive(window, 0)
    assert window.take_acks(4) == (0,) and not window.has_new_acks
    receive(window, 0)
    assert window.has_new_acks and window.take_acks(4) == (0,)


def test_acks_are_repeated_newest_first_behind_the_new_ones() -> None:
    window = ReceiveWindow()
    for message_id in (0, 1, 2):
        receive(window, message_id)
    assert window.take_acks(4) == (0, 1, 2)
    receive(window, 3)
    assert window.take_acks(4) == (3, 0, 1, 2)
    assert window.take_acks(2) == (3, 0), "also where nothing is new"


def test_new_acks_that_do_not_fit_wait_for_the_next_packet() -> None:
    window = ReceiveWindow()
    for message_id in range(6):
        receive(window, message_id)
    assert window.take_acks(4) == (0, 1, 2, 3) and window.has_new_acks
    assert window.take_acks(4) == (4, 5, 0, 1) and not window.has_new_acks


def test_at_most_eight_recent_acks_are_kept() -> None:
    window = ReceiveWindow()
    for message_id in range(10):
        receive(window, message_id)
        window.take_acks(1)
    assert window.take_acks(8) == (9, 8, 7, 6, 5, 4, 3, 2)


def test_a_storm_of_duplicates_keeps_the_ack_list_bounded() -> None:
    window = ReceiveWindow()
    for message_id in range(200):
        receive(window, message_id)
        window.pop()
        window.take_acks(8)
    for message_id in range(200):
        assert receive(window, message_id) is ReceiveVerdict.DUPLICATE
    rounds = 0
    while window.has_new_acks:
        window.take_acks(8)
        rounds += 1
    assert rounds <= 4
