"""Profiles for tests: their text, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.configuration.load import parse
from bridged.errors import ConfigurationErrors
from bridged.profiles import Trust, parse_profile, render_yaml, to_configuration

BASE = "client\ndev tap\nremote hub.example.net 1195\n"


IDENTITY = "ca ca.crt\ncert client.crt\nkey client.key\nremote-cert-tls server\n"


TRUST = Trust(certificate="/x/client.crt", key="/x/client.key", ca="/x/ca.crt", wrap_key="/x/wrap.key")


def read(extra="", base=BASE, identity=IDENTITY):
    return parse_profile(base + extra + ("\n" if extra else "") + identity, "site.ovpn")


def refusals(extra="", base=BASE, identity=IDENTITY):
    with pytest.raises(ConfigurationErrors) as caught:
        read(extra, base, identity)
    return caught.value.errors


def configured(profile, **changes):
    """Through YAML and the daemon's own schema."""
    data = to_configuration(profile, TRUST, tunnel_name="hub", bridge="br0", ports=["eth1"], **changes)
    return parse(render_yaml(data, ["heading"]), Path("/x/client.yaml")).tunnels["hub"]


def connection(*lines):
    return "\n".join(("<connection>", *lines, "</connection>")) + "\n"
