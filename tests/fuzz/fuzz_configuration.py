"""Fuzz target: a configuration file of arbitrary bytes gives a configuration or ConfigurationErrors."""

from __future__ import annotations

from pathlib import Path

from bridged.configuration import Configuration, diff, find_warnings
from bridged.configuration.load import parse
from bridged.errors import ConfigurationErrors

FILE = Path("/nonexistent/fuzz.yaml")


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        configuration = parse(text, FILE)
    except ConfigurationErrors as errors:
        assert errors.errors
        assert all(error.file == FILE and error.reason for error in errors.errors)
        return
    assert isinstance(configuration, Configuration)
    assert diff(configuration, configuration) == []
    find_warnings(configuration)
