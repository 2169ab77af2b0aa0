"""The command line: words, exit statuses, and where the text goes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridged import __version__
from bridged.cli.status_text import clean, peer_lines, size, span
from bridged.configuration import schema_json
from bridged.dataplane import native
from bridged.runtime.snapshot import ReloadStatus
from tests.lab.bounds import at_most_or
from tests.lab.references import loading_work
from tests.lab.snapshots import NOW, absent_peer, daemon, peer, status_answer, tunnel
from tests.lab.waiting import PATIENCE
from tests.unit.cli.answering_daemon import GOOD, running

COMMAND = [sys.executable, "-m", "bridged.cli.main"]


def bridged(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_good_file_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD.replace("[eth1]", "[]"))
    done = bridged("check", path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "OK",
        "bridge br0: ports none",
        "tunnel main: server, tap-main in br0, listens on [::]:1194",
    ]
    hazards = [line for line in done.stderr.splitlines() if line.startswith("this host: warning: ")]
    assert done.stderr.splitlines() == hazards


def test_a_port_that_does_not_exist_is_a_warning_that_calls_it_missing(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD.replace("[eth1]", "[no-such-port]"))
    done = bridged("check", path)
    assert done.returncode == 0 and done.stdout.startswith("OK\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}: bridges.br0.ports[0]: warning: no-such-port is missing")


def test_a_client_of_its_own_server_on_the_same_bridge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    tls = "tls: {ca: /c, certificate: /c, key: /k}"
    text = GOOD.replace("[eth1]", "[]")
    path.write_text(text + f"  away: {{role: client, bridge: br0, remotes: ['127.0.0.1:1194'], {tls}}}\n")
    done = bridged("check", path)
    assert done.returncode == 2 and done.stdout == ""
    assert "tunnels.away.remotes[0]" in done.stderr and "tunnel main" in done.stderr
    path.write_text(path.read_text().replace("br0: {ports: []}", "br0: {ports: []}, br1: {}"))
    other = path.read_text().replace("role: client, bridge: br0", "role: client, bridge: br1")
    path.write_text(other)
    assert bridged("check", path).returncode == 0, "two bridges may be joined"


def test_a_bad_file_is_told_line_by_line_on_stderr_with_status_2(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD.replace("ports", "prots").replace("server", "sever"))
    done = bridged("check", path)
    assert done.returncode == 2
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"{path}:1: bridges.br0.prots: unknown key; did you mean `ports`?"
    assert second.startswith(f"{path}:3: tunnels.main.role: must be 'server' or 'client'")


def test_warnings_go_to_stderr_and_do_not_fail(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD.replace(", wrap: {mode: tls-crypt}", ""))
    done = bridged("check", path)
    assert done.returncode == 0
    assert done.stdout.startswith("OK\n")
    assert "tunnels.main.wrap.mode: warning:" in done.stderr


def test_the_schema_is_printed() -> None:
    done = bridged("check", "--schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == schema_json()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("tap",),
        ("check",),
        ("check", "--schema", "x.yaml"),
        ("check", "/nonexistent/x.yaml"),
        ("status", "--config", "/nonexistent/x.yaml"),
        ("confirm", "--config", "/nonexistent/x.yaml"),
        ("run",),
        ("run", "--config", "/x", "--confirm", "soon"),
        ("run", "--config", "/x", "--confirm", "0"),
        ("nonsense",),
        ("status", "--nonsense"),
        ("tap", "nonsense"),
    ],
)
def test_wrong_use_and_configuration_exit_with_2_and_no_traceback(arguments: tuple[str, ...]) -> None:
    done = bridged(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr
    assert done.stdout == ""


def test_version_and_help() -> None:
    told = bridged("--version").stdout
    missing = native.unavailable()
    assert told.startswith(f"bridged {__version__}, {'portable' if missing else 'native'} data plane")
    assert missing in told
    done = bridged("--help")
    assert done.returncode == 0
    for command in ("run", "check", "init", "invite", "join", "status", "confirm", "reload", "tap"):
        assert f" {command} " in done.stdout


@pytest.mark.measures
def test_help_starts_quickly_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import bridged.cli.main\n"
        "heavy = {'httpx', 'pydantic', 'yaml', 'cryptography', 'pyroute2', 'OpenSSL',"
        " 'prometheus_client', 'structlog', 'scapy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"
    before = os.times()
    bridged("--help")
    after = os.times()
    spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    # Of the processor: on a machine with nothing else to do it takes no longer.
    at_most_or(spent, 0.3, 4, lambda: loading_work("typer"), "bridged --help")


def test_status_without_a_daemon_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "bridged.yaml"
    config.write_text(GOOD + "admin: {socket: api.sock}\n")
    for command in ("status", "confirm", "reload"):
        done = bridged(command, "--config", config)
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("bridged: cannot reach the daemon: is bridged running?")
        assert str(tmp_path / "api.sock") in line


def test_status_shows_what_the_operator_asks_for(tmp_path: Path) -> None:
    with running(tmp_path) as (config, _):
        done = bridged("status", "--config", config)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    for word in (
        "bridged 0.1.0, pid 4242, up 2 h 0 min",
        "tunnel sites: server, listening, udp, listens on [::]:1194",
        "tap-sites (02:00:5e:10:00:01) in br0, wrap tls-crypt",
        "data plane portable (cryptography)",
        "FDB 4 of 100000",
        "eth1, eth2 (down)",
        "warehouse",
        "192.0.2.7:40000",
        "AES-256-GCM",
        "X25519MLKEM768",
        "TLSv1.3",
        "10 / 10.0 kB",
        "1 s ago",
    ):
        assert word in text
    assert "    workshop: away\n" in text
    assert "\x1b" not in text


def test_a_mistake_in_the_file_does_not_keep_the_status_from_being_shown(tmp_path: Path) -> None:
    with running(tmp_path) as (config, _):
        config.write_text(config.read_text() + "nonsense: 1\n")
        assert bridged("check", config).returncode == 2
        done = bridged("status", "--config", config)
        assert done.returncode == 0 and done.stdout.startswith("bridged 0.1.0"), done.stderr
        config.write_text("client\ndev tap\n")
        assert bridged("status", "--config", config).returncode == 2, "no configuration at all"


def test_status_json_is_the_api_s_answer(tmp_path: Path) -> None:
    with running(tmp_path) as (config, state):
        done = bridged("status", "--json", "--config", config)
    assert json.loads(done.stdout) == json.loads(status_answer(state.current).model_dump_json())


def test_status_on_a_terminal_has_colours(tmp_path: Path) -> None:
    state = replace(daemon(), confirm_deadline=NOW + 42)
    with running(tmp_path, state) as (config, _):
        terminal, side = pty.openpty()
        try:
            environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
            process = subprocess.Popen(
                [*COMMAND, "status", "--config", str(config)], stdout=side, env=environment
            )
            os.close(side)
            written = b""
            while True:
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # the terminal's other end is closed
                    break
                if not part:
                    break
                written += part
            assert process.wait(timeout=30) == 0
        finally:
            os.close(terminal)
    text = written.decode()
    assert "\x1b[1m" in text
    assert "warehouse" in text
    assert "undone in 42 s" in text


def test_confirm_tells_whether_something_waited(tmp_path: Path) -> None:
    with running(tmp_path) as (config, state):
        first = bridged("confirm", "--config", config)
        second = bridged("confirm", "--config", config)
    assert (first.returncode, first.stdout) == (0, "confirmed\n")
    assert (second.returncode, second.stdout) == (0, "nothing waits for confirmation\n")
    assert state.confirmed == 2


@pytest.mark.parametrize(
    ("outcome", "detail", "code", "said"),
    [
        ("applied", "", 0, "applied\n"),
        ("restarted", "tunnels.lab", 0, "applied; restarted: tunnels.lab\n"),
        ("rejected", "line 3: no such key", 1, "rejected: line 3: no such key\n"),
    ],
)
def test_reload_tells_what_became_of_it(
    tmp_path: Path, outcome: str, detail: str, code: int, said: str
) -> None:
    with running(tmp_path) as (config, state):
        state.reloaded = ReloadStatus({outcome: 1}, outcome, detail)
        done = bridged("reload", "--config", config)
    assert done.returncode == code
    assert (done.stderr if code else done.stdout) == said


def test_a_peer_cannot_send_escape_sequences_to_the_terminal(tmp_path: Path) -> None:
    state = daemon(tunnel("sites", peer("evil\x1b[2J\x07name"), last_error="bad\x1b]0;x\x07"))
    with running(tmp_path, state) as (config, _):
        done = bridged("status", "--config", config)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert clean("a\nb\x9bc") == "a�b�c"


def test_an_interrupt_ends_without_a_traceback(tmp_path: Path) -> None:
    """A client that waits for a daemon that does not answer is stopped by Ctrl-C."""
    import socket

    config = tmp_path / "bridged.yaml"
    config.write_text(GOOD + "admin: {socket: api.sock}\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        listener.settimeout(20)
        process = subprocess.Popen(
            [*COMMAND, "status", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        connection.settimeout(20)
        assert connection.recv(65536), "it has asked, and waits"
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=5 * PATIENCE)
        except subprocess.TimeoutExpired:
            # The interrupt came right before the client blocked: Python sees it when a second one wakes it.
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        connection.close()
    assert process.returncode == 1
    assert out == ""
    assert err == "bridged: interrupted\n"


def test_an_interrupt_while_the_modules_load_ends_without_a_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from bridged.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "bridged: interrupted\n")


@pytest.mark.parametrize("arguments", [("check", "--schema"), ("check", "site.yaml")])
def test_a_result_that_cannot_be_printed_is_said_with_its_destination(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "site.yaml").write_text(GOOD)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "bridged: standard output: No space left on device"


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (5e15, "5000.0 TB")],
)
def test_sizes_for_people(octets: float, text: str) -> None:
    assert size(octets) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_spans_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_peer_with_several_sessions_shows_their_number() -> None:
    answer = status_answer(daemon(tunnel("sites", peer("a", sessions=3), absent_peer("b"))))
    first, second = (next(iter(peer_lines(item, answer.now))) for item in answer.tunnels[0].peers)
    assert first.startswith("    a: connected ×3") and second == "    b: away"


def test_no_line_of_the_status_is_wider_than_80_columns(tmp_path: Path) -> None:
    wide = peer(
        "x" * 64,
        endpoint="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
        counters=replace(peer("a").counters, drops={("receive", f"reason_{n}"): 10**9 for n in range(20)}),
        sessions=12,
    )
    sites = tunnel(
        "n" * 63,
        wide,
        local_endpoint="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
        last_error="no " * 200 + "/" * 200,
        coalescing={"tcp4": "because " * 30},
    )
    state = daemon(sites, reload=ReloadStatus({}, "rejected", "line 3: no such key; " * 20))
    with running(tmp_path, state) as (config, _):
        done = bridged("status", "--config", config)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("reason_19 1000000000", "x" * 64, "65535", "no such key", "tcp4 goes frame by frame"):
        assert word in done.stdout


def test_the_status_says_what_was_dropped_for_which_reason(tmp_path: Path) -> None:
    with running(tmp_path) as (config, _):
        text = " ".join(bridged("status", "--config", config).stdout.split())
    assert "control packets dropped 10: receive wrap_mismatch 9, receive replay 1" in text
    assert re.search(r" drops \d+: (receive|transmit) [a-z_]+ \d+", text)
