"""Reading and writing frames: with a time limit, in asyncio, of several queues; and TUN adapters."""

from __future__ import annotations

import asyncio
import errno
import gc
import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from bridged_tap import (
    FRAME_SIZE,
    AdapterLockedError,
    MacAddress,
    Queue,
    TapAdapter,
    TapError,
    TapSettingsError,
    VirtioHeader,
    adapter_info,
    create_tun,
    delete_adapter,
    list_adapters,
    open_tap,
    open_tun,
)
from tests.lab.bounds import at_most
from tests.lab.namespace import Namespace
from tests.lab.waiting import PATIENCE, until

pytestmark = pytest.mark.root

ETHERTYPE = 0x88B5
HEAD = b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x01" + ETHERTYPE.to_bytes(2, "big")
SECONDS = 5.0 * PATIENCE


def frame(number: int) -> bytes:
    return HEAD + number.to_bytes(4, "big") + bytes(42)


@pytest.fixture
def quiet(inside: Namespace) -> Namespace:
    """Without IPv6 an idle link carries nothing of the kernel's own."""
    inside.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    return inside


@contextmanager
def sender(name: str) -> Iterator[Callable[[int], None]]:
    """What puts numbered frames on the link, as a program of this host would."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((name, 0))
        yield lambda number: wire.send(frame(number)) and None


def refused(call: Callable[[], object]) -> TapError:
    with pytest.raises(TapError) as caught:
        call()
    return caught.value


@pytest.mark.measures
def test_read_waits_for_a_frame_and_no_longer_than_it_is_told(quiet: Namespace) -> None:
    with open_tap("tq0") as tap, sender("tq0") as send:
        tap.up()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            tap.read(timeout=0.05)
        took = time.monotonic() - began
        assert took >= 0.05
        at_most(took, 1.0, "reading where nothing comes")
        assert tap.read_nowait() is None
        later = threading.Timer(0.1, send, (7,))
        later.start()
        assert tap.read(timeout=SECONDS) == frame(7)
        later.join()
        send(8)
        assert tap.read() == frame(8)


def test_an_iterator_gives_frames_in_order_until_the_adapter_is_closed(quiet: Namespace) -> None:
    with open_tap("tq0") as tap, sender("tq0") as send:
        tap.up()
        for number in range(3):
            send(number)
        got = []
        for one in tap:
            got.append(one)
            if len(got) == 3:
                tap.close()
        assert got == [frame(number) for number in range(3)]


def test_async_for_gives_frames_and_ends_when_another_task_closes(quiet: Namespace) -> None:
    got: list[bytes] = []

    async def read_all(tap: TapAdapter) -> None:
        async for one in tap:
            got.append(one)  # noqa: PERF401 (it is looked at meanwhile)

    async def play() -> None:
        with open_tap("tq0") as tap, sender("tq0") as send:
            tap.up()
            reading = asyncio.create_task(read_all(tap))
            for number in range(3):
                await asyncio.sleep(0.01)
                send(number)
            await until(lambda: len(got) == 3)
            tap.close()
            await asyncio.wait_for(reading, SECONDS)

    asyncio.run(play())
    assert got == [frame(number) for number in range(3)]


def test_a_cancelled_receive_loses_no_frame(quiet: Namespace) -> None:
    async def play() -> None:
        with open_tap("tq0") as tap, sender("tq0") as send:
            tap.up()
            for number in range(50):
                waiting = asyncio.create_task(tap.receive())
                await asyncio.sleep(0)
                send(number)
                # The task is woken and cancelled in the same turn of the loop.
                await asyncio.sleep(0)
                waiting.cancel()
                results = await asyncio.gather(waiting, return_exceptions=True)
                got = results[0] if isinstance(results[0], bytes) else await tap.receive()
                assert got == frame(number)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await tap.receive()

    asyncio.run(play())


def test_two_tasks_share_the_frames_of_all_queues(quiet: Namespace) -> None:
    async def play() -> list[int]:
        numbers: list[int] = []

        async def take(tap: TapAdapter, task: int) -> None:
            async for one in tap:
                numbers.append(int.from_bytes(one[14:18], "big"))
                takers.add(task)
                await asyncio.sleep(0)

        def is_read(wanted: int) -> bool:
            return len(numbers) == wanted

        takers: set[int] = set()
        with open_tap("tq0", queues=3) as tap, sender("tq0") as send:
            tap.up()
            tasks = [asyncio.create_task(take(tap, task)) for task in range(2)]
            await asyncio.sleep(0.01)
            for enabled in range(3):
                for queue in tap.queues:
                    queue.disable()
                tap.queues[enabled].enable()
                for number in range(20):
                    send(100 * enabled + number)
                wanted = 20 * (enabled + 1)
                await until(partial(is_read, wanted))
            tap.close()
            await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)
        assert takers == {0, 1}
        return numbers

    assert sorted(asyncio.run(play())) == [100 * q + n for q in range(3) for n in range(20)]


def test_other_tasks_get_their_turn_while_frames_keep_coming(quiet: Namespace) -> None:
    async def play() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with open_tap("tq0") as tap, sender("tq0") as send:
            tap.up()
            for number in range(1000):
                send(number)
            counting = asyncio.create_task(count())
            for number in range(1000):
                assert await tap.receive() == frame(number)
            counting.cancel()
        return turns

    assert 10 <= asyncio.run(play()) <= 100


def test_a_second_event_loop_is_refused_while_the_first_one_waits(quiet: Namespace) -> None:
    with open_tap("tq0") as tap, sender("tq0") as send:
        tap.up()
        started = threading.Event()
        received = []

        async def wait() -> bytes:
            asyncio.get_running_loop().call_later(0.01, started.set)
            return await asyncio.wait_for(tap.receive(), SECONDS)

        thread = threading.Thread(target=lambda: received.append(asyncio.run(wait())))
        thread.start()
        assert started.wait(SECONDS)
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(asyncio.wait_for(tap.receive(), SECONDS))
        send(7)
        thread.join(SECONDS)
        assert received == [frame(7)]


def test_an_event_loop_that_was_closed_under_a_waiting_task_is_in_nobodys_way(quiet: Namespace) -> None:
    with open_tap("tq0") as tap, sender("tq0") as send:
        tap.up()
        first = asyncio.new_event_loop()
        waiting = first.create_task(tap.receive())
        first.run_until_complete(asyncio.sleep(0.01))
        first.close()

        async def play() -> bytes:
            asyncio.get_running_loop().call_later(0.01, send, 7)
            return await asyncio.wait_for(tap.receive(), SECONDS)

        assert asyncio.run(play()) == frame(7)
        assert not waiting.done()


def test_a_deleted_adapter_ends_the_waiting_task_with_an_error(quiet: Namespace) -> None:
    async def play() -> TapError:
        with open_tap("tq0", persistent=True) as tap:
            tap.up()
            waiting = asyncio.create_task(tap.receive())
            await asyncio.sleep(0.01)
            quiet.run("ip", "link", "delete", "tq0")
            with pytest.raises(TapError) as caught:
                await asyncio.wait_for(waiting, SECONDS)
            return caught.value

    error = asyncio.run(play())
    assert (error.code, error.errno) == ("tap_gone", errno.EBADFD)


def test_reading_serves_all_queues_and_a_thread_may_have_one_for_itself(quiet: Namespace) -> None:
    with open_tap("tq0", queues=2) as tap, sender("tq0") as send:
        tap.up()
        tap.queues[0].disable()  # all that comes now is on the second queue
        send(1)
        assert tap.read(timeout=SECONDS) == frame(1)
        assert tap.queues[0].read_nowait() is None
        got: list[bytes] = []

        def take(queue: Queue) -> None:
            got.append(queue.read(timeout=SECONDS))

        thread = threading.Thread(target=take, args=(tap.queues[1],))
        thread.start()
        send(2)
        thread.join(SECONDS)
        assert got == [frame(2)]
        error = refused(tap.fileno)
        assert error.code == "tap_queues" and "2 queues" in error.message
        assert len(tap.fds) == 2


def test_readinto_fills_the_buffer_of_the_caller(quiet: Namespace) -> None:
    with open_tap("tq0") as tap, sender("tq0") as send:
        tap.up()
        buffer = bytearray(FRAME_SIZE)
        assert tap.queues[0].readinto(buffer) is None
        send(5)
        size = tap.queues[0].readinto(buffer)
        assert size is not None and buffer[:size] == frame(5)


def test_every_refusal_is_a_tap_error_that_says_what_it_is(quiet: Namespace) -> None:
    with open_tap("tq0") as tap:
        down = refused(lambda: tap.write(frame(0)))
        assert (down.code, down.errno) == ("tap_down", errno.EIO)
        assert isinstance(down, OSError) and "up()" in str(down)
        tap.up()
        short = refused(lambda: tap.write(b"short"))
        assert (short.code, short.errno) == ("tap_frame", errno.EINVAL)
        single = refused(tap.queues[0].disable)
        assert (single.code, single.errno) == ("tap_io", errno.EINVAL)
    for call in (tap.read, tap.read_nowait, tap.up, tap.fileno, tap.queues[0].disable):
        assert refused(call).code == "tap_closed"
    assert refused(lambda: tap.write(frame(0))).code == "tap_closed"
    again = pickle.loads(pickle.dumps(down))
    assert (type(again), again.code, again.errno, str(again)) == (TapError, "tap_down", errno.EIO, str(down))


@pytest.mark.parametrize("mac", ["02-00-5E-10-00-01", MacAddress.parse("02:00:5e:10:00:01")])
def test_an_address_may_be_text(quiet: Namespace, mac: MacAddress | str) -> None:
    with open_tap("tq0", mac=mac) as tap:
        assert str(tap.mac) == "02:00:5e:10:00:01"
        tap.set_mac("02:00:5e:10:00:02")
        assert bytes(tap.mac) == bytes.fromhex("02005e100002")
        error = refused(lambda: tap.set_mac("02:00:5e:10:00"))
        assert error.code == "mac_address" and isinstance(error, TapSettingsError | ValueError)


def test_wrong_arguments_are_value_errors_before_anything_is_opened() -> None:
    for call in (
        lambda: open_tap("tq0", mac="random"),
        lambda: open_tap("tq0", owner="no-such-user-here"),
        lambda: open_tun("tq0", mtu=65536),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert isinstance(caught.value, TapSettingsError)


def test_a_tun_adapter_carries_ip_packets_both_ways(quiet: Namespace) -> None:
    with open_tun("tn0", mtu=65535) as tun:
        tun.add_address("192.0.2.1/24")
        tun.add_address("192.0.2.1/24")
        tun.up()
        assert tun.mtu == 65535
        addresses = quiet.run("ip", "-o", "address", "show", "dev", "tn0")
        assert addresses.count("inet 192.0.2.1/24") == 1
        info = adapter_info("tn0")
        assert (info.mode, info.mac, info.held) == ("tun", None, True)
        assert tun.mode == "tun" and not hasattr(tun, "mac")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind(("192.0.2.1", 4000))
            host.settimeout(SECONDS)
            host.sendto(b"question", ("192.0.2.2", 5000))
            packet = tun.read(timeout=SECONDS)
            assert packet[0] >> 4 == 4 and packet.endswith(b"question")
            # Back, with the addresses and the ports exchanged: both checksums stay right.
            ports = struct.unpack_from("!HH", packet, 20)
            answer = packet[:12] + packet[16:20] + packet[12:16] + struct.pack("!HH", *ports[::-1])
            assert tun.write(answer + packet[24:]) == len(packet)
            assert host.recvfrom(100) == (b"question", ("192.0.2.2", 5000))
        error = refused(lambda: tun.add_address("192.0.2.300/24"))
        assert error.code == "tap_settings"
        error = refused(lambda: tun.write(b""))
        assert error.code == "tap_frame"


def test_ipv6_addresses_and_other_namespaces_reach_an_open_adapter(namespace: Namespace) -> None:
    with namespace.entered():
        tun = open_tun("tn0")
    with tun:
        tun.add_address("2001:db8::1/64")
        assert "2001:db8::1/64" in namespace.run("ip", "-o", "address", "show", "dev", "tn0")


def test_a_tun_has_lock_persistence_and_queues_as_a_tap(quiet: Namespace) -> None:
    assert create_tun("tn%d", multi_queue=True) == "tn0"
    with open_tun("tn0", queues=2) as tun:
        assert tun.adopted and tun.is_locked and len(tun.queues) == 2
        assert isinstance(refused(lambda: open_tun("tn0")), AdapterLockedError)
        assert isinstance(refused(lambda: delete_adapter("tn0")), AdapterLockedError)
    assert "TUN adapter" in str(refused(lambda: open_tap("tn0")))
    delete_adapter("tn0")
    assert list_adapters() == ()
    with open_tap("tq0"):
        assert refused(lambda: open_tun("tq0", lock=False)).code == "tap_not_a_tun"


def test_a_header_written_by_the_kernel_is_parsed_and_ours_is_taken(quiet: Namespace) -> None:
    with open_tap("tq0", virtio_header=True) as tap, sender("tq0") as send:
        tap.up()
        send(3)
        data = tap.read(timeout=SECONDS)
        assert VirtioHeader.parse(data) == VirtioHeader()
        assert data[VirtioHeader.SIZE :] == frame(3)
        assert tap.write(bytes(VirtioHeader()) + frame(4)) == len(data)


def test_a_task_may_wait_for_one_queue_while_another_waits_for_all(quiet: Namespace) -> None:
    async def play() -> list[bytes]:
        with open_tap("tq0", queues=2) as tap, sender("tq0") as send:
            tap.up()
            tap.queues[0].disable()
            waiting = [asyncio.create_task(reader.receive()) for reader in (tap, tap.queues[1])]
            await asyncio.sleep(0.01)
            send(1)
            first, _ = await asyncio.wait(waiting, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
            assert len(first) == 1
            send(2)
            return await asyncio.wait_for(asyncio.gather(*waiting), SECONDS)

    assert sorted(asyncio.run(play())) == [frame(1), frame(2)]


def test_an_adapter_that_is_forgotten_is_closed_with_a_warning(quiet: Namespace) -> None:
    tap = open_tap("tq0")
    with pytest.warns(ResourceWarning, match="unclosed adapter <TapAdapter tq0"):
        del tap
        gc.collect()
    assert list_adapters() == ()
    open_tap("tq0").close()
