"""The JSON schema of the file, for editors that complete and check while you type. Pure: no I/O."""

from __future__ import annotations

from typing import Any

from bridged.configuration.schema import Configuration


def schema_json() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file, as plain dicts and lists."""
    schema = Configuration.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "bridged configuration",
    }
