"""Completions in the real shells: commands, options, and names that a running daemon knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridged.cli import names
from bridged.cli.entry import COMPLETE_NAMES
from scripts.deb import completion
from tests.lab.processes import run
from tests.lab.snapshots import daemon
from tests.packaging.terminal import Terminal
from tests.unit.cli.answering_daemon import running

BEGIN = {
    "bash": "bind 'set bell-style none'; source {folder}/bridged.bash",
    "zsh": "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {folder}/dump",
}
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion files, under the names that the shells look for."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, text in completion.files().items():
        (folder / ("_bridged" if shell == "zsh" else f"bridged.{shell}")).write_text(text)
    return folder


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, folder: Path) -> Iterator[Terminal]:
    options = {"bash": ("--norc", "--noprofile", "-i"), "zsh": ("-f", "-i")}[request.param]
    with Terminal((request.param, *options), {"PATH": PATH, "HOME": str(folder)}) as terminal:
        # The echo of the line itself has quotes in the word.
        terminal.typed(BEGIN[request.param].format(folder=folder) + "; echo beg''un\n")
        terminal.wait_for("begun")
        yield terminal


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with running(tmp_path, daemon()) as (config, _):
        yield config


def fish(folder: Path, line: str) -> list[str]:
    """What fish offers for `line`."""
    found = run(
        "env",
        f"PATH={PATH}",
        "fish",
        "--no-config",
        "-c",
        f"source {folder}/bridged.fish; complete -C '{line}'",
    )
    return [offer.split("\t")[0] for offer in found.splitlines()]


def test_a_shell_completes_commands_options_and_codes(shell):
    for begin, end in (
        ("bridged ki", "bridged kick "),
        ("bridged show-", "bridged show-config "),
        ("bridged tap del", "bridged tap delete "),
        ("bridged status --js", "bridged status --json "),
        ("bridged explain replay_w", "bridged explain replay_window "),
        ("bridged init --port l", "bridged init --port lo "),
    ):
        shell.typed(begin + "\t")
        shell.wait_for(end)
        shell.typed("\x15")  # Ctrl-U: the line is empty again


def test_a_shell_completes_names_that_the_daemon_knows(shell, config):
    (tunnel, *_) = tunnels = offered("tunnels", config)
    peer = sorted(offered("peers", config))[0]
    assert len(tunnels) == 1
    shell.typed(f"bridged kick --config {config} --tunnel {tunnel[:2]}\t")
    shell.wait_for(f"--tunnel {tunnel} ")
    shell.typed(f"\x15bridged kick --config {config} {peer[:-1]}\t")
    shell.wait_for(f"{config} {peer}")


def offered(kind: str, config: Path) -> list[str]:
    found = run("env", f"PATH={PATH}", "bridged", COMPLETE_NAMES, kind, str(config)).splitlines()
    assert found
    return found


def test_fish_completes_commands_options_and_names(folder, config):
    assert fish(folder, "bridged ki") == ["kick"]
    assert fish(folder, "bridged status --js") == ["--json"]
    assert fish(folder, "bridged tap del") == ["delete"]
    assert set(fish(folder, f"bridged kick --config {config} ")) >= set(offered("peers", config))
    assert fish(folder, "bridged init --port l") == ["lo"]


def test_without_a_daemon_names_are_silent(tmp_path, capsys):
    config = tmp_path / "bridged.yaml"
    config.write_text("bridges: {}\ntunnels: {}\nadmin: {socket: none.sock}\n")
    for arguments in (["peers", str(config)], ["tunnels", str(tmp_path / "missing.yaml")], ["nonsense"], []):
        names.print_names(arguments)
    config.write_text("no: [yaml")
    names.print_names(["peers", str(config)])
    assert capsys.readouterr() == ("", "")


def test_asking_for_names_loads_nothing_that_is_slow():
    arguments = "sys.argv = ['bridged', 'complete-names', 'peers']"
    code = (
        f"import sys; {arguments}; from bridged.cli.entry import main; main();"
        "print(sorted({'typer', 'httpx', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    assert run(sys.executable, "-c", code) == "[]\n"
