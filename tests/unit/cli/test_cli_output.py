"""Nothing that others wrote steers a terminal: one module prints, and shows control characters as escapes."""

from __future__ import annotations

import ast
import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridged.cli
from bridged.admin.models import StatusAnswer
from bridged.cli import output, status, status_text
from bridged.cli.main import main
from bridged.profiles import parse_profile
from bridged.profiles.profile import Notice
from bridged.protocol.text import visible
from tests.lab.snapshots import NOW, daemon, peer, status_answer, tunnel

EVIL = "a\x1b]0;owned\x07b\x9b31m\u202e\r\n\x00\x7f"
SHOWN = r"a\x1b]0;owned\x07b\x9b31m\u202e\r\n\x00\x7f"
PRINTERS = ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write")
HOSTILE_PROFILE = """client
dev tap
remote h
ignore-unknown-option X\x1b]0;owned\x07
X\x1b]0;owned\x07 1
data-ciphers AES-256-GCM:A\x1b[31mB
<ca>
x
</ca>
<cert>
x
</cert>
<key>
x
</key>
"""


def controls(text: str) -> set[str]:
    """What no line of ours may hold."""
    return {char for char in text if not char.isprintable() and char != "\n"}


def test_no_other_module_of_the_cli_prints() -> None:
    folder = Path(bridged.cli.__file__).parent
    for path in sorted(folder.glob("*.py")):
        # The names for completion load no typer, and are printed only if they are printable.
        if path.name in ("output.py", "names.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in (
                "print",
                "typer.echo",
                "typer.secho",
                "sys.stdout.write",
                "sys.stderr.write",
            ), f"{path.name}:{node.lineno}: print by bridged.cli.output"


@given(st.text())
def test_what_is_shown_is_printable_and_plain_text_stays(text: str) -> None:
    assert visible(text).isprintable()
    assert controls(visible(text, lines=True)) <= {"\t"}
    if text.isprintable():
        assert visible(text) == text
    assert visible(text, lines=True).count("\n") == text.count("\n")


def test_a_message_and_a_result_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(EVIL)
    output.say(EVIL)
    out = capsys.readouterr()
    assert out.out == SHOWN + "\n" and out.err == SHOWN + "\n"


def test_a_document_reaches_a_file_unchanged_and_a_terminal_visibly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        is_terminal = False

        def isatty(self) -> bool:
            return self.is_terminal

    for is_terminal, expected in ((False, "a\n\x1b[2J\tb\n"), (True, "a\n\\x1b[2J\tb\n")):
        stream = Stream()
        stream.is_terminal = is_terminal
        monkeypatch.setattr(sys, "stdout", stream)
        output.hand_over("a\n\x1b[2J\tb\n")
        assert stream.getvalue() == expected


def test_a_status_full_of_hostile_text_is_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tunnel(
        "sites",
        peer(EVIL, endpoint=EVIL, cipher=EVIL, tls_version=EVIL, key_group=EVIL, platform=EVIL),
        last_error=EVIL,
        remote=EVIL,
        coalescing={"tcp4": EVIL},
    )
    state = daemon(hostile)
    state = replace(state, reload=replace(state.reload, outcome="rejected", detail=EVIL))
    answer = status_answer(state).model_dump(mode="json")
    safe = StatusAnswer.model_validate(output.visible_tree(answer))
    status._print(safe)
    out = capsys.readouterr().out
    # Lines are folded; nothing but line feeds may be left that is not printable.
    assert controls(out) == set()
    assert "owned" in out.replace("\n", "")


def test_a_crash_that_quotes_hostile_text_is_shown_harmlessly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash() -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr("bridged.cli.main.app", crash)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(RuntimeError) as caught:
        main()
    sys.excepthook(caught.type, caught.value, caught.tb)
    err = capsys.readouterr().err
    assert "Traceback" in err and "owned" in err and controls(err) == set()


def test_errors_and_notices_of_a_hostile_profile_are_shown_harmlessly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "x.ovpn"
    for text in (HOSTILE_PROFILE, HOSTILE_PROFILE + f"\x1b]0;{EVIL}\n", f"remote \x1b[31m {EVIL}\n"):
        profile.write_text(text, newline="")
        monkeypatch.setattr(sys, "argv", ["bridged", "join", str(profile), "--bridge", "br0"])
        with pytest.raises(SystemExit):
            main()
        out = capsys.readouterr()
        assert out.err and controls(out.err) == set(), out.err
    notices = parse_profile(HOSTILE_PROFILE, "x.ovpn").notices
    assert notices and all(notice.text.isprintable() for notice in notices)
    assert Notice(1, EVIL).text == SHOWN


def test_errors_of_a_hostile_configuration_are_shown_harmlessly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    for text in (
        '"\\e]0;owned\\a": 1\n',
        'bridges: {br0: {ports: ["\\e[31m"]}}\ntunnels: {}\n',
        'bridges: {br0: {}}\ntunnels: {"t\\e": {role: "\\e", bridge: "\\x9b"}}\n',
        "bridges: \x1b\n",
    ):
        path.write_text(text)
        monkeypatch.setattr(sys, "argv", ["bridged", "check", str(path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        out = capsys.readouterr()
        assert out.err and controls(out.err) == set(), out.err


def test_what_ends_within_thirty_days_stands_in_the_status() -> None:
    def lines(**changes: object) -> list[str]:
        values: dict[str, object] = {"certificates": {}, "crl_next_update": None, "peers": ()} | changes
        state = daemon(replace(tunnel("sites"), **values))  # type: ignore[arg-type]
        return status_text.warning_lines(status_answer(state))

    day = 86_400
    assert lines() == []
    assert lines(certificates={"own": NOW + 31 * day, "ca": NOW + 400 * day}) == []
    assert lines(certificates={"own": NOW + 29 * day, "ca": NOW + 400 * day}) == [
        "tunnel sites: our certificate ends in 29 d 0 h"
    ]
    assert lines(certificates={"own": NOW - 3600}) == ["tunnel sites: our certificate ended 1 h 0 min ago"]
    assert lines(crl_next_update=NOW + day) == [
        "tunnel sites: the revocation list (then nobody can connect) ends in 1 d 0 h"
    ]
    many = tuple(peer(f"p{number}", certificate_not_after=NOW + number * 60) for number in range(1, 9))
    told = lines(peers=(*many, peer("later", certificate_not_after=NOW + 40 * day)))
    assert told[0] == "tunnel sites: the certificate of p1 ends in 1 min 0 s"
    assert len(told) == 6 and told[-1].endswith("so do 3 more")
