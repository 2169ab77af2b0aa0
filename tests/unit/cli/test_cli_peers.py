"""`bridged revoke`, `kick` and `invite --replace`: by the running daemon, and without one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridged.cli.main import main
from bridged.errors import BridgedError
from bridged.pki import EmbeddedCa, PkiError
from bridged.runtime.site.trust_keeper import Revocation
from tests.unit.cli.answering_daemon import GOOD, running


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Asked = list[tuple[str, str | None, str | None]]
Run = Callable[..., Done]


@pytest.fixture
def bridged(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in this process."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["bridged", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return Done(int(ended.value.code or 0), out.out, out.err)

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a CA that has issued to `shop`; no daemon runs."""
    path = tmp_path / "bridged.yaml"
    path.write_text(GOOD + "admin: {socket: api.sock}\nstate_directory: state\n")
    authority = EmbeddedCa.create(tmp_path / "state")
    authority.set_remote("192.0.2.1:1194")
    authority.issue("shop", "client")
    return path


@contextmanager
def daemon(config: Path, answer: Revocation | BridgedError) -> Iterator[Asked]:
    """A daemon that answers so; what it was asked."""
    asked: Asked = []
    text = config.read_text()
    with running(config.parent) as (_, state):
        config.write_text(text)

        async def revoke(name: str, keep: str | None, folder: str | None) -> Revocation:
            asked.append((name, keep, folder))
            if isinstance(answer, BridgedError):
                raise answer
            return answer

        def kick(name: str, tunnel: str | None) -> int:
            asked.append((name, None, tunnel))
            if tunnel not in (None, "main"):
                raise KeyError(tunnel)
            return 2 if name == "shop" else 0

        state.revoke = revoke  # type: ignore[attr-defined]
        state.kick = kick  # type: ignore[attr-defined]
        yield asked


def revoked(config: Path) -> list[str]:
    return [row.name for row in EmbeddedCa.open(config.parent / "state").certificates() if row.revoked]


def test_revoke_without_a_daemon_changes_the_index_and_the_list(config: Path, bridged: Run) -> None:
    done = bridged("revoke", "shop", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "revoked shop: 1 certificate" in done.stdout and "no session was ended" in done.stderr
    assert revoked(config) == ["shop"]
    assert (config.parent / "state/pki/crl.pem").read_text().startswith("-----BEGIN X509 CRL-----")
    again = bridged("revoke", "shop", "--config", config)
    assert again.returncode == 2 and "no valid certificate for 'shop'" in again.stderr


def test_a_mistake_in_the_file_keeps_nobody_from_being_revoked(config: Path, bridged: Run) -> None:
    config.write_text(config.read_text() + "nonsense: 1\n")
    assert bridged("check", config).returncode == 2
    done = bridged("revoke", "shop", "--config", config)
    assert done.returncode == 0 and "revoked shop: 1 certificate" in done.stdout, done.stderr


def test_revoke_takes_the_state_folder_alone(config: Path, bridged: Run) -> None:
    done = bridged("revoke", "shop", "--state", config.parent / "state")
    assert done.returncode == 0 and revoked(config) == ["shop"]


def test_a_running_daemon_revokes_and_says_how_many_sessions_ended(config: Path, bridged: Run) -> None:
    with daemon(config, Revocation(1, 3)) as asked:
        done = bridged("revoke", "shop", "--config", config)
    assert done.returncode == 0
    assert done.stdout == "revoked shop: 1 certificate; 3 sessions ended\n"
    assert asked == [("shop", None, str(config.parent / "state"))]
    assert revoked(config) == [], "the daemon does it, not the command"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PkiError("pki_unknown", "no valid certificate for 'shop'"), 2),
        (BridgedError("not_ready", "the daemon is starting"), 1),
        (BridgedError("other_state", "the daemon's state folder is /x"), 1),
    ],
)
def test_a_daemon_s_refusal_is_the_command_s(
    config: Path, error: BridgedError, status: int, bridged: Run
) -> None:
    with daemon(config, error):
        done = bridged("revoke", "shop", "--config", config)
    assert done.returncode == status and error.message in done.stderr
    assert revoked(config) == []


def test_the_server_s_own_certificate_cannot_be_revoked(config: Path, bridged: Run) -> None:
    done = bridged("revoke", "server", "--config", config)
    assert done.returncode == 2 and "own certificate" in done.stderr


def test_kick_says_how_many_sessions_ended_and_fails_where_there_was_none(config: Path, bridged: Run) -> None:
    with daemon(config, Revocation(0, 0)) as asked:
        done = bridged("kick", "shop", "--config", config)
        assert (done.returncode, done.stdout) == (0, "kicked shop: 2 sessions ended\n")
        nobody = bridged("kick", "depot", "--config", config, "--tunnel", "main")
        assert nobody.returncode == 1 and "depot has no session" in nobody.stderr
        wrong = bridged("kick", "shop", "--config", config, "--tunnel", "x")
        assert wrong.returncode == 1 and "no tunnel 'x'" in wrong.stderr
    assert asked == [("shop", None, None), ("depot", None, "main"), ("shop", None, "x")]
    alone = bridged("kick", "shop", "--config", config)
    assert alone.returncode == 1 and "is bridged running?" in alone.stderr


def test_invite_replace_issues_anew_and_revokes_the_former_one(config: Path, bridged: Run) -> None:
    state = config.parent / "state"
    refused = bridged("invite", "shop", "--state", state, "--output", config.parent / "a.ovpn")
    assert refused.returncode == 2 and "--replace" in refused.stderr
    with daemon(config, Revocation(1, 1)) as asked:
        done = bridged(
            *("invite", "shop", "--state", state, "--replace", "--config", config),
            *("--output", config.parent / "b.ovpn"),
        )
    assert done.returncode == 0, done.stderr
    assert "invited shop" in done.stderr and "revoked shop: 1 certificate; 1 session ended" in done.stderr
    newest = EmbeddedCa.open(state).certificates()[-1]
    assert asked == [("shop", newest.serial, str(state))]
    alone = bridged(
        *("invite", "shop", "--state", state, "--replace", "--config", config),
        *("--output", config.parent / "c.ovpn"),
    )
    assert alone.returncode == 0, alone.stderr
    rows = [row for row in EmbeddedCa.open(state).certificates() if row.name == "shop"]
    assert [row.revoked is None for row in rows] == [False, False, True]


def test_invite_replace_that_cannot_be_written_leaves_the_former_certificate(
    config: Path, bridged: Run
) -> None:
    state = config.parent / "state"
    before = [row.serial for row in EmbeddedCa.open(state).certificates() if row.name == "shop"]
    folder = config.parent / "full"
    done = bridged(
        *("invite", "shop", "--state", state, "--replace", "--config", config),
        *("--output", folder / "x.ovpn"),
    )
    assert done.returncode == 2 and "no folder" in done.stderr
    assert [row.serial for row in EmbeddedCa.open(state).certificates() if not row.revoked][1:] == before
