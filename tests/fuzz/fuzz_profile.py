"""Fuzz target: OpenVPN profiles from arbitrary text; what is taken must suit the daemon's own schema."""

from __future__ import annotations

from pathlib import Path

from bridged.configuration.load import parse
from bridged.errors import ConfigurationErrors
from bridged.profiles import Trust, parse_profile, render_yaml, to_configuration

TRUST = Trust(certificate="/c", key="/k", ca="/a", wrap_key="/w")


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
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
