"""Every command that a comment, a heading or the README names works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from bridged.cli.main import app
from bridged.configuration import load
from bridged.pki import EmbeddedCa
from tests.unit.documents.guides import FENCE, GUIDES, blocks

ROOT = Path(__file__).parents[3]
PLACEHOLDERS = ("FILE", "NAME", "|", "SECONDS", "REASON", "…")


def commands_in(text: str) -> list[list[str]]:
    """Lines that are a command, and commands in `backticks`, in order; no synopses, no placeholders."""
    found = re.findall(r"^(?:#   |    #   |    )(bridged .*)$|`(bridged [a-z][^`]*)`", text, re.MULTILINE)
    words = [shlex.split(one or other, comments=True) for one, other in found]
    return [line for line in words if not any(word in PLACEHOLDERS or "[" in word for word in line)]


def parse_only(words: list[str]) -> None:
    """Parse as the command line does; a wrong option or a missing argument raises."""
    root = typer.main.get_command(app)
    with root.make_context("bridged", words[1:]) as context:
        name, command, rest = root.resolve_command(context, [words[1], *words[2:]])  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context)


def documented() -> dict[str, list[list[str]]]:
    pages = [ROOT / "README.md", ROOT / "docs" / "troubleshooting.md"]
    files = [*pages, *sorted((ROOT / "config").rglob("*.yaml"))]
    found = {file.name: commands_in(file.read_text()) for file in files}
    for page in sorted(GUIDES.glob("*.md")):
        fenced = [shlex.split(command) for block in blocks(page) for command in block.commands]
        found[page.name] = [words for words in fenced if words[:1] == ["bridged"]]
        found[page.name] += commands_in(FENCE.sub("", page.read_text()))
    return found


@pytest.mark.parametrize(("name", "words"), [(n, w) for n, found in documented().items() for w in found])
def test_every_documented_command_has_options_that_exist(name, words):
    if words[1].startswith("-"):
        assert words[1:] == ["--version"]
    elif len(words) > 2 or words[1] not in ("init", "invite", "join", "tap", "run"):
        parse_only(words)


def test_the_default_configuration_s_commands_work_one_after_the_other(bridged, tmp_path):
    text = (ROOT / "config" / "bridged.yaml").read_text()
    commands = commands_in(text)
    assert [words[1] for words in commands if words[1] in ("invite", "check")] == ["invite", "check"]
    # What the first start does.
    EmbeddedCa.ensure(tmp_path / "state")
    load(ROOT / "config" / "bridged.yaml")
    for words in commands:
        if words[1] == "invite":
            arguments = [
                str(tmp_path / "state") if word == "/var/lib/bridged" else word for word in words[1:]
            ]
            status, _, errors = bridged(*arguments)
            assert status == 0, errors
            assert Path("laptop.ovpn").is_file()


def test_the_readme_s_five_commands_work_one_after_the_other(bridged, tmp_path):
    commands = commands_in((ROOT / "README.md").read_text())
    steps = [words for words in commands if words[1] in ("init", "invite", "join") and len(words) > 2]
    assert [words[1] for words in steps] == ["init", "invite", "join"]
    for words in steps:
        status, _, errors = bridged(
            *(str(tmp_path / "s") if word == "/var/lib/bridged" else word for word in words[1:])
        )
        assert status == 0, errors
    assert load(Path("server.yaml")).tunnels and load(Path("client.yaml")).tunnels
    # What init's and the profile's headings name works as well.
    texts = [Path(name).read_text() for name in ("server.yaml", "warehouse.ovpn")]
    named = [text.replace("FILE", "x").replace("NAME", "y") for text in texts]
    headings = [words for text in named for words in commands_in(text) if len(words) > 2]
    assert {words[1] for words in headings} >= {"invite", "check", "join", "run"}
    for words in headings:
        parse_only(words)


def test_what_init_says_is_next_works_as_said(bridged, tmp_path):
    _, _, errors = bridged("init", "--state", "my state", "--remote", "hub", "--output", "s.yaml")
    (line,) = [line for line in errors.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.split("`")[1].replace("NAME", "site-b"))
    status, _, errors = bridged(*words[1:])
    assert status == 0 and Path("site-b.ovpn").is_file(), errors
    assert "secure channel" in errors and "contains a private key" in errors


def test_the_profile_tells_the_openvpn_side_how_to_bridge(bridged, server):
    _, text, _ = bridged("invite", "site-b", "--state", "state")
    heading = text[: text.index("\nclient\n")]
    for command in ("openvpn --config FILE --dev tap0", "ip link set tap0 master br0", "ip link set tap0 up"):
        assert f"#   {command}\n" in heading
        assert command.replace("FILE", "warehouse.ovpn") in (ROOT / "README.md").read_text()


def test_the_readme_names_every_command():
    page = (ROOT / "README.md").read_text()
    names = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in names if not re.search(rf"`(bridged )?{name}\b", page)] == []
