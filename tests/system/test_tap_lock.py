"""The adapter lock against real processes: ours, forked ones, OpenVPN, squatters, and the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bridged_tap import (
    AdapterLockedError,
    TapError,
    adapter_info,
    create_tap,
    delete_adapter,
    find_holder,
    lock_adapter,
    open_tap,
)
from bridged_tap.lock import _find_socket_holder
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root

SECONDS = 10.0
HOLDER = """
import sys
from bridged_tap import open_tap
taps = [open_tap(sys.argv[1], queues=int(sys.argv[2]), lock=sys.argv[3] == "lock")]
print("ready")
sys.stdin.read()
"""
SQUATTER = """
import os, socket, sys
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX)
s.bind("\\0bridged/tap/" + sys.argv[1])
s.listen(int(sys.argv[3]))
print("ready")
sys.stdin.read()
"""
FORKING_HOLDER = """
import os, sys
from bridged_tap import lock_adapter
lock = lock_adapter(sys.argv[1])
if os.fork():
    os._exit(0)
os.setsid()
print(f"{os.getpid()}", flush=True)
sys.stdin.read()
"""


def refusal(name: str, queues: int = 1) -> AdapterLockedError:
    with pytest.raises(AdapterLockedError) as caught:
        open_tap(name, queues=queues)
    assert caught.value.code == "adapter_locked"
    return caught.value


def wait_for_holder(name: str) -> None:
    deadline = time.monotonic() + SECONDS
    while find_holder(name) is None:
        assert time.monotonic() < deadline, f"nobody took {name}"
        time.sleep(0.02)


@pytest.mark.parametrize("queues", [1, 4])
def test_a_second_process_is_refused_and_told_pid_and_command(inside: Namespace, queues: int) -> None:
    holder = inside.start_python(HOLDER, "tq0", str(queues), "lock")
    error = refusal("tq0", queues=queues)
    assert error.holder_pid == holder.pid
    assert error.holder_command is not None and "bridged_tap" in error.holder_command
    assert str(holder.pid) in error.message and "choose another name" in error.message
    shown = adapter_info("tq0")
    assert (shown.held, shown.holder_pid) == (True, holder.pid)


@pytest.mark.parametrize("queues", [1, 4])
def test_a_killed_holder_leaves_the_adapter_free_at_once(inside: Namespace, queues: int) -> None:
    inside.run("ip", "tuntap", "add", "dev", "tq0", "mode", "tap", *(["multi_queue"] if queues > 1 else []))
    holder = inside.start_python(HOLDER, "tq0", str(queues), "lock")
    refusal("tq0", queues=queues)
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=SECONDS)
    with open_tap("tq0", queues=queues) as tap:
        assert tap.is_locked


def test_a_closed_adapter_is_free_and_the_same_process_cannot_hold_it_twice(inside: Namespace) -> None:
    with open_tap("tq0", queues=2):
        assert refusal("tq0", queues=2).holder_pid == os.getpid()
    open_tap("tq0").close()


def test_with_lock_off_two_processes_share_a_multi_queue_adapter(inside: Namespace) -> None:
    inside.start_python(HOLDER, "tq0", "2", "lock")
    with open_tap("tq0", queues=2, lock=False) as tap:
        assert not tap.is_locked
        assert adapter_info("tq0").queues == 4


def test_a_process_is_not_refused_for_what_it_has_attached_itself(inside: Namespace) -> None:
    with open_tap("tq0", queues=2, lock=False), open_tap("tq0", queues=2) as tap:
        assert tap.is_locked
        assert adapter_info("tq0").queues == 4


def test_with_lock_off_a_single_queue_adapter_is_busy_by_the_kernel_and_names_the_holder(
    inside: Namespace,
) -> None:
    holder = inside.start_python(HOLDER, "tq0", "1", "lock")
    with pytest.raises(TapError) as caught:
        open_tap("tq0", lock=False)
    assert caught.value.code == "tap_busy"
    assert str(holder.pid) in caught.value.message


def test_a_holder_without_lock_is_found_by_what_it_has_attached(inside: Namespace) -> None:
    for name, queues in (("one", "1"), ("many", "2")):
        holder = inside.start_python(HOLDER, name, queues, "unlocked")
        assert refusal(name, queues=int(queues)).holder_pid == holder.pid
        # The refused attempt must not have kept the lock to itself.
        lock_adapter(name).release()


def test_openvpn_holding_the_adapter_is_named(inside: Namespace) -> None:
    inside.run("ip", "link", "set", "lo", "up")
    openvpn = inside.start(
        "openvpn", "--dev", "tapo", "--dev-type", "tap", "--local", "127.0.0.1", "--remote", "127.0.0.1",
        "--lport", "11940", "--rport", "11941",
    )  # fmt: skip
    wait_for_holder("tapo")
    error = refusal("tapo")
    assert error.holder_pid == openvpn.pid
    assert error.holder_command is not None and error.holder_command.startswith("openvpn --dev tapo")
    with pytest.raises(AdapterLockedError):
        delete_adapter("tapo")
    openvpn.terminate()
    openvpn.wait(timeout=SECONDS)
    open_tap("tapo").close()


def test_openvpn_cannot_take_an_adapter_that_we_hold(inside: Namespace) -> None:
    with open_tap("tapo"):
        openvpn = inside.start(
            "openvpn", "--dev", "tapo", "--dev-type", "tap", "--local", "127.0.0.1", "--lport", "11940",
            "--remote", "127.0.0.1",
        )  # fmt: skip
        output, _ = openvpn.communicate(timeout=SECONDS)
        assert openvpn.returncode == 1
        assert "busy" in output


def test_the_same_name_in_two_namespaces_does_not_collide(namespace: Namespace, other: Namespace) -> None:
    holder = other.start_python(HOLDER, "tq0", "2", "unlocked")
    locked = other.start_python(HOLDER, "tq1", "2", "lock")
    with namespace.entered():
        for name in ("tq0", "tq1"):
            create_tap(name, multi_queue=True)
            assert find_holder(name) is None
            with open_tap(name, queues=2) as tap:
                assert tap.is_locked
    with other.entered():
        assert refusal("tq0", queues=2).holder_pid == holder.pid
        assert refusal("tq1", queues=2).holder_pid == locked.pid


def test_a_thread_in_another_namespace_is_refused_by_the_holders_there_and_by_no_others(
    namespace: Namespace, other: Namespace
) -> None:
    namespace.start_python(HOLDER, "locked", "1", "lock")
    namespace.start_python(HOLDER, "attached", "2", "unlocked")
    seen: dict[tuple[str, str], bool] = {}

    def look() -> None:
        for place in (namespace, other):
            with place.entered():
                for name in ("locked", "attached"):
                    seen[place.name, name] = find_holder(name) is not None
                    # Also by the second way, for holders whose backlog is full.
                    assert (_find_socket_holder(f"bridged/tap/{name}") is not None) == (
                        place is namespace and name == "locked"
                    )
        seen["looked", ""] = True

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(timeout=SECONDS)
    assert seen == {
        (namespace.name, "locked"): True,
        (namespace.name, "attached"): True,
        (other.name, "locked"): False,
        (other.name, "attached"): False,
        ("looked", ""): True,
    }


def test_a_lock_that_went_on_to_a_forked_child_names_the_child(inside: Namespace) -> None:
    parent = inside.start(sys.executable, "-u", "-c", FORKING_HOLDER, "tq0")
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline())
    parent.wait(timeout=SECONDS)
    assert refusal("tq0").holder_pid == child
    parent.stdin.close()
    parent.stdin = None
    assert parent.stdout.read() == ""
    open_tap("tq0").close()


def test_a_user_without_rights_to_the_adapter_cannot_keep_it_from_us(inside: Namespace) -> None:
    inside.start_python(SQUATTER, "tq0", "12345", "8")
    with open_tap("tq0", queues=2) as tap:
        assert not tap.is_locked
        # The second line still stands: another of us finds the first by what it has attached.
        code = (
            "from bridged_tap import *\n"
            "try:\n    open_tap('tq0', queues=2)\n"
            "except AdapterLockedError as error:\n    print(error.holder_pid)\n"
        )
        assert inside.run(sys.executable, "-c", code).strip() == str(os.getpid())


def test_a_squatter_with_a_full_backlog_is_seen_through_all_the_same(inside: Namespace) -> None:
    inside.start_python(SQUATTER, "tq0", "12345", "0")
    for _ in range(4):
        open_tap("tq0").close()


def test_the_lock_of_the_adapters_owner_counts(inside: Namespace) -> None:
    create_tap("tq0", owner=12345)
    squatter = inside.start_python(SQUATTER, "tq0", "12345", "8")
    assert refusal("tq0").holder_pid == squatter.pid
    create_tap("tq1", group=777)
    member = inside.start_python(SQUATTER, "tq1", "12346", "8")
    assert refusal("tq1").holder_pid == member.pid


def test_the_holder_is_named_however_often_it_was_asked_for(inside: Namespace) -> None:
    holder = inside.start_python(HOLDER, "tq0", "1", "lock")
    for _ in range(300):  # more than the holder's backlog takes
        found = find_holder("tq0")
        assert found is not None and found.pid == holder.pid


def test_a_holder_in_another_pid_namespace_still_excludes_us(inside: Namespace) -> None:
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-u",
        "-c",
        HOLDER,
    ]
    hidden = inside.start(*command, "tq0", "2", "lock")
    assert hidden.stdout is not None
    assert hidden.stdout.readline() == "ready\n"
    # From above the process is visible, and named as we see it.
    assert refusal("tq0", queues=2).holder_command is not None
    # From beside it is not: the refusal stands without a name.
    code = (
        "from bridged_tap import *\n"
        "try:\n    open_tap('tq0', queues=2)\n"
        "except AdapterLockedError as error:\n    print(error.holder_pid, error)\n"
    )
    beside = inside.run("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code)
    assert beside.startswith("None ") and "another process" in beside


def test_racing_processes_leave_exactly_one_holder(inside: Namespace) -> None:
    code = (
        "import sys\nfrom bridged_tap import *\nsys.stdin.readline()\n"
        "try:\n    tap = open_tap('tq0', queues=2)\n    print('won', flush=True)\n"
        "except AdapterLockedError:\n    print('lost', flush=True)\n"
        "sys.stdin.read()\n"
    )
    create_tap("tq0", multi_queue=True)
    racers = [inside.start(sys.executable, "-u", "-c", code) for _ in range(6)]
    time.sleep(0.5)  # let them import; the start signal comes to all of them then
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = sorted(racer.stdout.readline().strip() for racer in racers if racer.stdout)
    assert outcomes == ["lost"] * 5 + ["won"]


def test_the_lock_needs_no_writable_file_system(inside: Namespace) -> None:
    code = "from bridged_tap import *\nwith open_tap('tq0') as tap:\n    print(tap.is_locked)\n"
    script = (
        'for m in /run /tmp /dev/shm; do mount -o bind,ro "$m" "$m"; done; mount -o remount,bind,ro /\n'
        "for m in / /run /tmp /dev/shm /var/lib; do\n"
        '  if touch "$m/btap-probe" 2>/dev/null; then\n'
        '    rm "$m/btap-probe"; echo "$m is writable" >&2; exit 9\n'
        "  fi\n"
        'done; exec "$@"'
    )
    done = subprocess.run(
        ["ip", "netns", "exec", inside.name, "sh", "-ec", script, "-", sys.executable, "-B", "-c", code],
        check=False, capture_output=True, text=True, timeout=30, cwd="/",
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr
