"""The configuration file: its schema, loading with line numbers, checks, and what a change costs."""

from __future__ import annotations

from bridged.configuration.check import find_warnings
from bridged.configuration.diff import diff
from bridged.configuration.json_schema import schema_json
from bridged.configuration.load import load, load_admin
from bridged.configuration.schema import Configuration

__all__ = ["Configuration", "diff", "find_warnings", "load", "load_admin", "schema_json"]
