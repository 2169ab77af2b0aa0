"""The guides: their blocks are of a known kind, followed by a test or marked, and their YAML is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.configuration import load
from tests.lab.pictures import FOLDER, is_of_this_kind, printed, terminal, two_lans
from tests.unit.documents.documents import ROOT
from tests.unit.documents.guides import GUIDES, Block, blocks

PAGES = sorted(GUIDES.glob("*.md"))
FOLLOWED = {"office-a", "office-b", "server", "docker-host"}
MARKED = {"reader", "server-systemd"}
BASE = """\
bridges: {br0: {ports: [eth1]}}
tunnels:
  server: {role: server, bridge: br0, tls: {embedded: true}, wrap: {mode: none}}
  warehouse:
    role: client
    bridge: br0
    remotes: ["vpn.example.net:1194"]
    tls: {ca: ca.crt, certificate: own.crt, key: own.key}
    wrap: {mode: none}
"""
FRAGMENTS = [(page.stem, block) for page in PAGES for block in blocks(page) if block.kind == "yaml"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_guide_has_a_kind_and_a_place(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = blocks(page)
    assert text.startswith("# ") and len(found) == text.count("```") // 2
    for block in found:
        assert block.place in FOLLOWED | MARKED if block.kind == "sh" else block.kind in ("yaml", "text")


def test_every_guide_with_commands_for_a_test_is_followed_by_one() -> None:
    tests = ("tests/system/test_guides.py", "tests/lab/offices.py", "tests/interop/test_openvpn_migration.py")
    tests += ("tests/packaging/test_docker_image.py",)
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in tests)
    wanted = [page.stem for page in PAGES if any(block.place in FOLLOWED for block in blocks(page))]
    assert len(wanted) >= 7 and [name for name in wanted if f'guide("{name}")' not in text] == []


@pytest.mark.parametrize(
    ("page", "block"), FRAGMENTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_fragment_of_yaml_is_accepted_as_a_drop_in(page: str, block: Block, tmp_path: Path) -> None:
    main = tmp_path / "bridged.yaml"
    main.write_text(BASE)
    before = load(main)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "fragment.yaml").write_text(block.text)
    assert load(main) != before, page


def test_the_picture_of_two_lans_is_what_the_generator_draws() -> None:
    drawn = (FOLDER / "two-lans.svg").read_text(encoding="utf-8")
    assert drawn == two_lans(), "run: python -m tests.lab.pictures"


def test_a_terminal_picture_gives_back_what_it_shows() -> None:
    said = "a hazard\n\nbridge br0: made, <peer> & 3.5 MB,\n  02:00:5e:10:00:01\n\nend"
    assert printed(terminal("bridged status", said)) == said
    later = "bridge br0: made, <peer> & 41 kB, 02:00:5e:10:00:99, dropped 3 end"
    assert is_of_this_kind(said, later) and not is_of_this_kind(later, said)
    assert not is_of_this_kind(said, later.replace("made", "adopted"))
