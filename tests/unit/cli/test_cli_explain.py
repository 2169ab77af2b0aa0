"""`bridged explain`: what a code means."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bridged.cli.main import app


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("float_refused", ["float_refused (drop reason, auth): "]),
        ("adapter_locked", ["adapter_locked (error, adapter): "]),
        ("crl_expired", ["crl_expired (handshake outcome): "]),
        ("path_mtu_changed", ["path_mtu_changed (counter of mtu_events): "]),
        ("kicked", ["kicked (disconnect reason): "]),
        ("timeout", ["timeout (error, daemon): ", "timeout (handshake outcome): "]),
    ],
)
def test_each_kind_of_code_is_explained(code: str, said: list[str]) -> None:
    lines = CliRunner().invoke(app, ["explain", code]).stdout.splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(lines, said, strict=True))


def test_a_mistyped_code_is_wrong_use_and_names_the_nearest() -> None:
    done = CliRunner().invoke(app, ["explain", "float_refusd"])
    assert done.exit_code == 2
    assert "float_refused" in done.output
