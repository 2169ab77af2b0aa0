"""The suite depends on nothing of the machine that it does not set itself."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.results import Result, notes_on
from tests.bench.run import HUB_MEASURE, parse, tcp_of
from tests.lab import Lab
from tests.lab.host_settings import (
    CONGESTION_ALWAYS,
    CONGESTION_WANTED,
    defaults,
    forget_machine,
    sysctl_path,
    usable_congestion,
)
from tests.lab.iperf import iperf3

TESTS = Path(__file__).parents[1]
LAB = "tests/interop/test_lab_with_openvpn.py::"
CHOSEN = (
    "tests/unit/cli/test_cli_pki.py",
    "tests/unit/configuration/test_generated.py",
    "tests/system/test_netlink_journal.py",
    "tests/system/test_default_configuration.py",
    f"{LAB}test_two_openvpn_ends_use_what_the_profile_says[tls-crypt-CHACHA20-POLY1305]",
)
"""Files that are written and read, sentences that are compared, dates, a daemon, OpenVPN."""


@pytest.mark.root
def test_a_namespace_of_the_lab_takes_over_no_setting_of_this_machine() -> None:
    with Lab("anyhost") as lab:
        space = lab.namespace("host")

        def wrong() -> dict[str, str]:
            files = [(file, value) for file, value in defaults() if file.exists()]
            assert len(files) > 40
            found = {str(file): file.read_text(encoding="ascii").split() for file, _ in files}
            return {str(file): found[str(file)] for file, value in files if found[str(file)] != value.split()}

        def spoil() -> dict[str, str]:
            for key, value in (
                ("net.ipv4.conf.default.rp_filter", "1"),
                ("net.ipv4.conf.all.forwarding", "1"),
            ):
                sysctl_path(key).write_text(value, encoding="ascii")
            spoiled = wrong()
            forget_machine()
            return spoiled

        assert space.call(wrong) == {}
        assert len(space.call(spoil)) >= 2, "what this test looks at can be wrong"
        assert space.call(wrong) == {}


@pytest.mark.root
def test_ipv6_of_a_cable_works_at_once() -> None:
    with Lab("anyhost") as lab:
        ends = [lab.namespace(role) for role in ("near", "far")]
        lab.veth((ends[0], "eth0"), (ends[1], "eth0"))
        for space in ends:
            assert "inet6 fe80:" in space.ip("-6", "addr", "show", "dev", "eth0")
            assert "tentative" not in space.ip("-6", "addr", "show", "dev", "eth0")


@pytest.mark.root
def test_every_tcp_stream_has_the_congestion_control_it_asked_for_whatever_this_machine_allows() -> None:
    with Lab("anyhost") as lab:
        space = lab.namespace("host")
        for congestion in (usable_congestion(), CONGESTION_ALWAYS):
            options = ("-n", "1M", "--bidir")
            end = iperf3(space, space, "127.0.0.1", *options, congestion=congestion)["end"]
            assert {end["sender_tcp_congestion"], end["receiver_tcp_congestion"]} == {congestion}


def test_nothing_runs_iperf3_but_by_the_command_that_names_the_congestion_control() -> None:
    commands = re.compile(r"""["']iperf3["'],\s*(\*|["']-)""")
    found = [str(path) for path in TESTS.rglob("*.py") if commands.search(path.read_text(encoding="utf-8"))]
    assert found == [str(TESTS / "lab" / "host_settings.py")]


def test_a_kernel_without_the_congestion_control_that_was_asked_for_is_said_in_every_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert usable_congestion("no_such_one") == CONGESTION_ALWAYS
    chosen = parse(["--congestion", CONGESTION_WANTED])
    result = Result(HUB_MEASURE, "native", "openvpn", 1500, [(2.0, 1.0)])
    monkeypatch.setattr("tests.bench.run.usable_congestion", lambda wanted: CONGESTION_ALWAYS)
    result.extra = tcp_of(chosen)
    assert result.document()["tcp"] == CONGESTION_ALWAYS
    assert result.document()["tcp_wanted"] == CONGESTION_WANTED
    assert any(CONGESTION_WANTED in note and CONGESTION_ALWAYS in note for note in notes_on([result]))


@pytest.mark.root
@pytest.mark.timeout(600)
def test_chosen_tests_pass_with_umask_077_without_home_in_the_c_locale_and_in_a_far_time_zone() -> None:
    left_out = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LANGUAGE", "PYTHONUTF8", "PYTHONIOENCODING")
    far = {"LANG": "C", "LC_ALL": "C", "TZ": "Pacific/Chatham"}
    # This test has its place on the machine: those inside must not wait for one (tests/quiet_machine.py).
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {name: value for name, value in ours.items() if name not in left_out} | far

    def hostile() -> None:
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *CHOSEN],
        cwd=TESTS.parent,
        env=environment,
        preexec_fn=hostile,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
