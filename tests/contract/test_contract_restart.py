"""Contract: what a restart needs of a data plane: holding what arrives, inherited sockets, signs of life."""

from __future__ import annotations

import os
import socket

import pytest

from bridged.addresses import Endpoint
from bridged.errors import DataplaneError
from tests.contract.dataplane_rig import Rig, frame, until


def come_round(rig: Rig) -> None:
    """Wait until every thread has begun another turn."""
    rig.plane.ask_threads()
    until(lambda: not rig.plane.silent_threads(), "an answer of every thread")


@pytest.mark.parametrize("priority", ["off", "dscp"])
def test_held_frames_wait_in_the_adapter_and_pass_in_order_once_they_are_read_again(
    build: str, priority: str
) -> None:
    with Rig(build, priority=priority) as rig:
        peer = rig.peer(1)
        rig.plane.hold(lan=True, wan=False)
        rig.put(frame(1, 2), frame(1, 3))
        come_round(rig)
        assert peer.is_quiet(0)
        peer.send(frame(2, 1))
        assert rig.frames() == [frame(2, 1)]
        rig.plane.hold(lan=False, wan=False)
        assert peer.payloads(2) == [frame(1, 2), frame(1, 3)]


def test_held_datagrams_wait_in_the_socket_while_sending_goes_on(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.hold(lan=False, wan=True)
    peer.send(frame(2, 1))
    come_round(rig)
    assert rig.tap_is_quiet(0)
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)]
    rig.plane.hold(lan=False, wan=False)
    assert rig.frames() == [frame(2, 1)]


def test_a_thread_that_does_not_run_is_silent_and_all_others_answer(build: str) -> None:
    rig = Rig(build)
    rig.plane.ask_threads()
    threads = rig.plane.silent_threads()
    assert set(threads) == set(rig.plane.snapshot().thread_cpu)
    with rig:
        until(lambda: not rig.plane.silent_threads(), "an answer of every thread")
        rig.plane.hold(lan=True, wan=True)
        come_round(rig)
    rig.plane.ask_threads()
    assert rig.plane.silent_threads() == threads


def test_threads_answer_under_load(rig: Rig) -> None:
    peer = rig.peer(1)
    for _ in range(20):
        rig.put(*(frame(1, 2) for _ in range(50)))
        rig.plane.ask_threads()
        assert len(peer.datagrams(50)) == 50
        until(lambda: not rig.plane.silent_threads(), "an answer of every thread")


def test_a_successor_reads_what_waited_in_the_socket_of_its_predecessor(build: str) -> None:
    with Rig(build) as first:
        endpoint = first.plane.local_endpoint
        kept = [socket.socket(fileno=os.dup(number)) for number in first.plane.socket_descriptors()]
        peer = first.peer(1)
        first.plane.hold(lan=True, wan=True)
        peer.send(frame(2, 1))
        successor = Rig(build, bind=endpoint)
        first.plane.stop()
        successor.plane.inherit_sockets([one.fileno() for one in kept])
        for one in kept:
            one.close()
        with successor:
            assert successor.plane.local_endpoint == endpoint
            again = successor.peer(2)
            again.send(frame(3, 1))
            assert successor.frames() == [frame(3, 1)]
            successor.dropped("receive", "unknown_peer_id")


def test_another_number_of_sockets_than_workers_is_refused(build: str) -> None:
    rig = Rig(build)
    with pytest.raises(DataplaneError) as refusal:
        rig.plane.inherit_sockets([])
    assert refusal.value.code == "bad_setting"
    with rig:
        assert isinstance(rig.plane.local_endpoint, Endpoint)
