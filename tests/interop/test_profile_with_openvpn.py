"""Invitations and the embedded CA, with real OpenVPN at both ends; and foreign TLS at our engine."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bridged.pki import EmbeddedCa
from bridged.profiles.table import find_directive
from bridged.protocol.session.tls_session import TlsEngine
from bridged.tls import TlsSettings, make_engine_factory
from tests.lab import Lab, TwoSites, wait_for
from tests.lab.openvpn import COMPLETED

ROOT = Path(__file__).parents[2]
COMMANDS = """
import sys, typer
from bridged.cli import join, pki
app = typer.Typer()
pki.register(app)
join.register(app)
app()
"""


def bridged(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", COMMANDS, *arguments], cwd=ROOT, check=True, timeout=60)


def server_file(authority: EmbeddedCa, port: int) -> str:
    """A plain OpenVPN TAP server that uses what the embedded CA made."""
    folder = authority.directory
    return "\n".join(
        (
            *("mode server", "tls-server", "dev tap0", "proto udp", f"port {port}", "dh none", "verb 4"),
            *(
                "keepalive 2 12",
                f"ca {folder}/ca.crt",
                f"cert {folder}/server.crt",
                f"key {folder}/server.key",
            ),
            *(f"tls-crypt-v2 {folder}/tls-crypt-v2.key", "remote-cert-tls client", ""),
        )
    )


@pytest.mark.root
def test_openvpn_joins_by_an_invitation_and_frames_cross() -> None:
    with Lab("invite") as lab:
        sites = TwoSites(lab)
        state, file = lab.directory / "state", lab.directory / "site-b.ovpn"
        bridged("init", "--state", str(state), "--remote", f"{sites.a.wan_ipv4}:1199")
        bridged("invite", "site-b", "--state", str(state), "--output", str(file))
        configuration = lab.directory / "server.ovpn"
        configuration.write_text(server_file(EmbeddedCa.open(state), 1199))
        sites.a.make_tap("tap0")
        server = sites.a.namespace.popen("openvpn", "--config", str(configuration), log="server")
        server.wait_for_output(COMPLETED, 15)
        # As the profile's own heading tells the OpenVPN side.
        heading = file.read_text().replace("FILE", str(file))
        start, *bridging = re.findall(r"^#   ((?:openvpn|ip) .*)$", heading, re.MULTILINE)
        client = sites.b.namespace.popen(*start.split(), log="client")
        client.wait_for_output(COMPLETED, 20)
        assert len(bridging) == 2
        for command in bridging:
            sites.b.namespace.run(*command.split())
        sites.a.host.ping(sites.b.host.ipv4)
        assert "[site-b] Peer Connection Initiated" in server.output()
        log = client.output()
        assert "VERIFY X509NAME OK: CN=server" in log and "AES-256-GCM" in log
        for word in ("DEPRECATED", "Unrecognized", "Options error", "WARNING: 'link-mtu'"):
            assert word not in log, log
        client.stop()
        wait_for(lambda: "exit message received by peer" in server.output().lower(), "the exit notice")


@pytest.mark.root
def test_openvpn_server_refuses_a_revoked_invitation() -> None:
    with Lab("revoke") as lab:
        sites = TwoSites(lab)
        state, file = lab.directory / "state", lab.directory / "site-b.ovpn"
        bridged("init", "--state", str(state), "--remote", sites.a.wan_ipv4)
        bridged("invite", "site-b", "--state", str(state), "--output", str(file))
        authority = EmbeddedCa.open(state)
        authority.revoke("site-b")
        crl = authority.crl()
        assert crl is not None
        (lab.directory / "crl.pem").write_bytes(crl)
        configuration = lab.directory / "server.ovpn"
        text = server_file(authority, 1194) + f"crl-verify {lab.directory}/crl.pem\n"
        configuration.write_text(text)
        sites.a.make_tap("tap0")
        server = sites.a.namespace.popen("openvpn", "--config", str(configuration), log="server")
        server.wait_for_output(COMPLETED, 15)
        sites.b.namespace.popen("openvpn", "--config", str(file), log="client")
        server.wait_for_output("certificate revoked", 20)
        assert "Peer Connection Initiated" not in server.output()


def test_every_option_that_the_installed_openvpn_names_is_known() -> None:
    text = subprocess.run(
        ["openvpn", "--help"], check=False, capture_output=True, text=True, timeout=10
    ).stdout
    options = set(re.findall(r"^--([a-z][a-z0-9-]+)", text, re.MULTILINE))
    assert len(options) > 200
    # 2.6 misspells this one in its help, and knows the right spelling.
    assert {name for name in options if find_directive(name) is None} <= {"ignore-unkown-option"}


@pytest.fixture
def authority(tmp_path: Path) -> EmbeddedCa:
    return EmbeddedCa.create(tmp_path / "state")


def settings(authority: EmbeddedCa, role: str, tmp_path: Path) -> TlsSettings:
    if role == "server":
        folder = authority.directory
        certificate, key = (folder / "server.crt").read_bytes(), (folder / "server.key").read_bytes()
    else:
        identity = authority.issue("site-b", "client")
        certificate, key = identity.certificate_pem, identity.key_pem
    (tmp_path / "own.crt").write_bytes(certificate)
    (tmp_path / "own.key").write_bytes(key)
    usage = "client" if role == "server" else "server"
    return TlsSettings(role, certificate, key, authority.certificate_pem, peer_usage=usage)  # type: ignore[arg-type]


def pump(engine: TlsEngine, connection: socket.socket, until: Callable[[], bool]) -> None:
    """Carry bytes between an engine and a TCP connection until `until()`, at most 10 s."""
    connection.settimeout(0.05)
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline, "the other end did not answer in time"
        connection.sendall(engine.take_ciphertext())
        try:
            engine.receive(connection.recv(65536))
        except TimeoutError:
            continue
    connection.sendall(engine.take_ciphertext())


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_our_server_engine_speaks_with_openssl_s_client(
    authority: EmbeddedCa, tmp_path: Path, version: str
) -> None:
    factory = make_engine_factory(settings(authority, "server", tmp_path))
    settings(authority, "client", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-tls{version}", "-quiet"]
        files = ["-CAfile", str(authority.directory / "ca.crt"), "-verify_return_error"]
        own = ["-cert", str(tmp_path / "own.crt"), "-key", str(tmp_path / "own.key")]
        program = subprocess.Popen(
            [*command, *files, *own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            listener.settimeout(10)
            connection, _ = listener.accept()
            engine = factory()
            with connection:
                pump(engine, connection, lambda: engine.is_established)
                assert program.stdin is not None and program.stdout is not None
                program.stdin.write(b"hello from s_client\n")
                program.stdin.flush()
                received: list[bytes] = []
                pump(engine, connection, lambda: received.append(engine.read()) or any(received))
                assert b"".join(received) == b"hello from s_client\n"
                engine.write(b"hello from the engine\n")
                connection.sendall(engine.take_ciphertext())
                assert program.stdout.readline() == b"hello from the engine\n"
            assert engine.summary().peer_name == "site-b"
            assert engine.summary().version == f"TLSv{version.replace('_', '.')}"
        finally:
            program.kill()
            program.communicate(timeout=10)


def test_openssl_s_client_cannot_resume_a_session(authority: EmbeddedCa, tmp_path: Path) -> None:
    factory = make_engine_factory(settings(authority, "server", tmp_path))
    settings(authority, "client", tmp_path)
    session = tmp_path / "session.pem"
    for extra in (["-sess_out", str(session)], ["-sess_in", str(session)]):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            own = ["-cert", str(tmp_path / "own.crt"), "-key", str(tmp_path / "own.key")]
            program = subprocess.Popen(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *own, *extra],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            try:
                listener.settimeout(10)
                connection, _ = listener.accept()
                engine = factory()
                with connection:
                    pump(engine, connection, partial(getattr, engine, "is_established"))
                    wait_for(session.exists, "the session file")
                output, _ = program.communicate(timeout=10)
            finally:
                program.kill()
                program.wait(10)
        assert b"\nNew, TLSv1.3" in output and b"\nReused" not in output
