"""Ends as they stand in the field: RSA certificates with long subjects, and DHE suites only."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.interop.interop_ends import openvpn, running
from tests.lab import Lab, Profile, TwoSites
from tests.lab.bridged_daemon import client, server
from tests.lab.openvpn import INSTALLED

pytestmark = pytest.mark.root

SUBJECT = "C=DE, ST=Köln, O=Müller & Söhne GmbH, CN=vpn.example.net"
REFUSAL = "`tls.peer_subject` asks for"
DHE_ONLY = "TLS-DHE-RSA-WITH-AES-256-GCM-SHA384:TLS-DHE-RSA-WITH-AES-128-GCM-SHA256"
PARAMETERS = ("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")


def subject() -> x509.Name:
    parts = (
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Köln"),
        (NameOID.ORGANIZATION_NAME, "Müller & Söhne GmbH"),
        (NameOID.COMMON_NAME, "vpn.example.net"),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def test_a_server_with_dhe_suites_only_is_joined_and_its_whole_subject_compared_as_openvpn_does() -> None:
    with Lab("older") as lab:
        sites, profile = TwoSites(lab), Profile()
        parameters = lab.directory / "dh.pem"
        subprocess.run([*PARAMETERS, "-out", str(parameters)], check=True, capture_output=True, timeout=30)
        issue = profile.authority.issue
        key = rsa.generate_private_key(65537, 2048)
        identity = issue("vpn", "server", subject=subject(), key=key)
        extra = (f"dh {parameters}", "tls-version-max 1.2", f"tls-cipher {DHE_ONLY}")
        name = f"verify-x509-name '{SUBJECT}' subject"
        far = sites.a.wan_ipv4
        with openvpn(sites.a, "server", profile, identity, extra=extra):
            # What OpenVPN itself compares is what we are to compare.
            with openvpn(
                sites.b, "client", profile, issue("c", "client"), remote=far, extra=(name,)
            ) as theirs:
                theirs.wait_connected()
                assert f"VERIFY X509NAME OK: {SUBJECT}" in theirs.log
            own = issue("client", "client")
            tls = {"ca": profile.authority.certificate, "certificate": own.certificate, "key": own.key}
            for wanted, is_accepted in ((SUBJECT, True), (SUBJECT.replace("ö", "o"), False)):
                tunnel = {"tls": {**tls, "peer_subject": wanted}}
                with running(client(sites.b, profile, own, far, tunnel=tunnel)) as ours:
                    if is_accepted:
                        ours.wait_connected()
                        assert "DHE-RSA-AES256-GCM" in theirs.log
                        continue
                    status = ours.wait_until(
                        lambda found: REFUSAL in (found["tunnels"][0]["last_error"] or ""), "the refusal", 20
                    )
                    assert SUBJECT in status["tunnels"][0]["last_error"]


@pytest.mark.parametrize("release", [INSTALLED, "2.5"])
def test_a_client_with_dhe_suites_only_finds_our_server(release: str) -> None:
    with Lab("older") as lab:
        sites, profile = TwoSites(lab), Profile()
        issue = profile.authority.issue
        identity = issue("server", "server", key=rsa.generate_private_key(65537, 2048))
        extra = ("tls-version-max 1.2", f"tls-cipher {DHE_ONLY}")
        with (
            running(server(sites.a, profile, identity)) as ours,
            openvpn(
                *(sites.b, "client", profile, issue("client", "client")),
                remote=sites.a.wan_ipv4,
                extra=extra,
                release=release,
            ) as theirs,
        ):
            theirs.wait_connected()
            ours.wait_connected()
            sites.a.host.ping(sites.b.host.ipv4)
            assert "Control Channel: TLSv1.2, cipher TLSv1.2 DHE-RSA-AES256-GCM-SHA384" in theirs.log
