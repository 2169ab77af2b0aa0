"""`bridged tap` as typer sees it: usage errors and refusals, their exit status and their stream.

What it does to real adapters is in tests/system/test_tap_adapter.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridged.cli.tap import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "a b"], "'a b'"),
        (["create", "toolongforalink0"], "15 bytes"),
        (["create", "tap0", "--mtu", "67"], "mtu is 67"),
        (["create", "tap0", "--mac", "01:00:5e:00:00:01"], "multicast"),
        (["create", "tap0", "--mac", "00:00:00:00:00:00"], "all zero"),
        (["create", "tap0", "--mac", "sometimes"], "random, ephemeral, stable"),
        (["create", "tap0", "--owner", "no-such-user-here"], "no user"),
        (["create", "tap0", "--group", "no-such-group-here"], "no group"),
        (["show"], "NAME"),
        (["create", "tap0", "--unknown"], "--unknown"),
    ],
)
def test_wrong_use_exits_2_and_says_why_on_stderr_only(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments, terminal_width=200, color=False)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("wrong", [["--mtu", "67"], ["--owner", "no-such-user-here"], ["--txqueuelen", "0"]])
def test_wrong_use_keeps_no_random_address(wrong: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["create", "tap0", "--mac", "random", "--state", str(tmp_path), *wrong])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "delete"])
def test_a_missing_adapter_exits_1_and_is_named_on_stderr_only(command: str) -> None:
    result = CliRunner().invoke(app, [command, "btap-absent0"])
    assert result.exit_code == 1
    assert "btap-absent0" in result.stderr
    assert result.stdout == ""


def test_help_names_the_four_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("list", "show", "create", "delete"):
        assert command in result.stdout
