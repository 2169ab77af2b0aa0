"""Fuzz target: OpenVPN profiles from arbitrary text; what is taken must suit the daemon's own schema."""

from __future__ import annotations

from pathlib import Path

from bridged.configuration.load import parse
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles import Trust, parse_profile, read_file, render_yaml, to_configuration

TRUST = Trust(certificate="/c", key="/k", ca="/a", wrap_key="/w")


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    _read_any_kind(text)
    try:
        profile = parse_profile(text, "site.ovpn")
    except ConfigurationErrors as caught:
        for error in caught.errors:
            assert error.reason and error.file == "site.ovpn"
            assert error.line is None or 1 <= error.line <= text.count("\n") + 1
        return
    assert profile.remotes and profile.certificate is not None and profile.key is not None
    data_ = to_configuration(profile, TRUST, tunnel_name="t", bridge="br0")
    parse(render_yaml(data_), Path("/client.yaml"))


def _read_any_kind(text: str) -> None:
    try:
        reading = read_file(text, "site.ovpn")
    except ConfigurationError as error:
        assert error.reason
        return
    assert all(str(outcome).isprintable() for outcome in reading.report)
    if not reading.errors:
        made = to_configuration(reading.profile, TRUST, tunnel_name="t", bridge="br0")
        parse(render_yaml(made), Path("/site.yaml"))
