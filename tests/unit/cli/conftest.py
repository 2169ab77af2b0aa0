"""The commands as a user calls them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from bridged.cli import exporting, importing, join, pki, wrap_keys
from bridged.errors import BridgedError, ConfigurationError


@pytest.fixture
def bridged(capsys, tmp_path, monkeypatch):
    """Run the command group; returns (exit status, stdout, stderr) as `bridged` itself would give."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    pki.register(app)
    exporting.register(app)
    importing.register(app)
    join.register(app)
    app.add_typer(wrap_keys.app, name="wrap-key")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bridged", *map(str, arguments)])
        try:
            app()
            status = 0
        except ConfigurationError as error:
            print(error, file=sys.stderr)
            status = 2
        except BridgedError as error:
            print(error, file=sys.stderr)
            status = 1
        except SystemExit as end:
            status = end.code or 0
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def server(bridged):
    status, _, errors = bridged(
        "init", "--state", "state", "--remote", "hub.example.net", "--port", "eth1", "--output", "server.yaml"
    )
    assert status == 0, errors
    return Path("state")
