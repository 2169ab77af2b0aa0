"""A client's profile as appliances and Windows write it, imported, with OpenVPN's server at the other end."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from tests.interop.interop_ends import openvpn, running
from tests.lab import Bridged, Lab, Profile, TwoSites, run
from tests.lab.bridged_daemon import BRIDGED, TUNNEL
from tests.lab.pki import Identity, write_private

pytestmark = pytest.mark.root

TEXT = """\
# Büro, geschrieben mit dem Editor
client
dev tap
dev-type tap
setenv FORWARD_COMPATIBLE 1
an-option-of-tomorrow yes
<connection>
remote 192.0.2.1 443 tcp-client
</connection>
<connection>
remote {address} {port} udp4
mssfix 0
</connection>
resolv-retry infinite
persist-key
persist-tun
fragment 0
data-ciphers DEFAULT:AES-256-CBC
data-ciphers-fallback AES-256-CBC
auth SHA256
verify-x509-name "{subject}" subject
up "C:\\\\up.bat br0"
script-security 2
tls-auth [inline] 1
<tls-auth>
{wrap}
</tls-auth>
<pkcs12>
{pkcs12}
</pkcs12>
"""


def packed(identity: Identity, authority: str, password: bytes) -> str:
    """A PKCS#12 block of certificate, key and CA."""
    key = load_pem_private_key(identity.key.encode(), None)
    certificate, ca = (
        x509.load_pem_x509_certificate(pem.encode()) for pem in (identity.certificate, authority)
    )
    content = pkcs12.serialize_key_and_certificates(
        b"site-b",
        key,  # type: ignore[arg-type]
        certificate,
        [ca],
        BestAvailableEncryption(password),
    )
    return base64.encodebytes(content).decode()


def test_a_profile_of_an_appliance_that_windows_saved_connects_to_a_server_without_key_usage() -> None:
    with Lab("profile") as lab:
        sites, profile = TwoSites(lab), Profile(wrap="tls-auth", digest="SHA256")
        issue = profile.authority.issue
        server = issue("server", "none")
        file, output = lab.directory / f"{TUNNEL}.ovpn", lab.directory / "client.yaml"
        write_private(lab.directory / "password", "geheim\n")
        text = TEXT.format(
            address=sites.a.wan_ipv4,
            port=profile.port,
            subject="CN=server",
            wrap=profile.wrap_key.strip(),
            pkcs12=packed(issue("client", "client"), profile.authority.certificate, b"geheim"),
        )
        file.write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
        options = ("--password-file", str(lab.directory / "password"), "--port", "lan0")
        run(BRIDGED, "import", str(file), *options, "--output", str(output))
        configuration = yaml.safe_load(Path(output).read_text())
        with (
            openvpn(sites.a, "server", profile, server) as theirs,
            running(Bridged(sites.b, configuration)) as ours,
        ):
            ours.wait_connected()
            theirs.wait_connected()
            sites.b.host.ping(sites.a.host.ipv4)
