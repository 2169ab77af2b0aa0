"""Reads the captures and known answers of this folder (README.md here says what the files hold)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.wrap import (
    NoWrap,
    TlsAuthKeys,
    TlsCryptKeys,
    TlsCryptV2Keys,
    TlsCryptV2Server,
    WrapKeys,
)
from bridged.protocol.packets.wrap.tls_crypt import dynamic_key
from bridged.protocol.role import Role

FOLDER = Path(__file__).parent
SCENARIOS = tuple(sorted(path.name for path in FOLDER.glob("a[0-9][0-9]-*")))


@cache
def load(scenario: str, name: str) -> Any:
    """`frames`, `secrets` or `messages` of one scenario."""
    return json.loads((FOLDER / scenario / f"{name}.json").read_text())


@cache
def unit_cases() -> dict[str, Any]:
    return json.loads((FOLDER / "unit.json").read_text())


def control_frames(scenario: str) -> list[dict[str, Any]]:
    return [frame for frame in load(scenario, "frames") if "wrap" in frame]


def data_frames(scenario: str) -> list[dict[str, Any]]:
    return [frame for frame in load(scenario, "frames") if "wrap" not in frame]


def sender(frame: dict[str, Any]) -> Role:
    return Role.CLIENT if frame["direction"] == "client-to-server" else Role.SERVER


def wrap_keys(scenario: str, frame: dict[str, Any], role: Role) -> WrapKeys:
    """The keys with which the end of that role seals and opens packets like `frame`."""
    wrap = load(scenario, "secrets")["control_wrap"]
    match frame["wrap"]:
        case "none":
            return NoWrap()
        case "tls-auth":
            return TlsAuthKeys(_key(wrap["key"]), wrap[f"{role.value}_direction"], wrap["digest"])
        case "tls-crypt":
            return TlsCryptKeys(_key(wrap["key"]), role)
        case "tls-crypt-v2":
            if role is Role.SERVER and "wkc" in frame:
                return TlsCryptV2Server(ServerWrapKey(bytes.fromhex(wrap["server_key"])))
            wrapped = bytes.fromhex(wrap["clients"][0]["wkc"]) if role is Role.CLIENT else b""
            return TlsCryptV2Keys(tls_crypt_v2_client_key(scenario), role, wrapped)
        case "dynamic-tls-crypt":
            return TlsCryptKeys(dynamic_wrap_key(scenario, frame["session_id"]), role)
    raise AssertionError(f"unknown wrap {frame['wrap']}")


def tls_crypt_v2_client_key(scenario: str) -> StaticKey:
    return _key(next(frame["client_key"] for frame in load(scenario, "frames") if "client_key" in frame))


def dynamic_wrap_key(scenario: str, session_id: str) -> StaticKey:
    """Made from exporter output and static key, not read from the file."""
    secrets = load(scenario, "secrets")
    wrap = secrets["control_wrap"]
    entry = next(
        entry
        for entry in secrets["dynamic_tls_crypt"]
        if session_id in (entry["client_session_id"], entry["server_session_id"])
    )
    if wrap["mode"] == "none":
        base = None
    elif wrap["mode"] == "tls-crypt-v2":
        base = tls_crypt_v2_client_key(scenario)
    else:
        base = _key(wrap["key"])
    return dynamic_key(base, bytes.fromhex(entry["exporter_output"]))


def _key(hexadecimal: str) -> StaticKey:
    return StaticKey(bytes.fromhex(hexadecimal))
