"""The exporters' web configuration file: what is taken, what is refused, and how changes are followed."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from bridged.addresses import Endpoint
from bridged.supervision import SUPERVISOR
from bridged.telemetry import passwords, web_access
from bridged.telemetry.server import MetricsServer, MetricsServerError
from bridged.telemetry.web_access import WebAccess
from bridged.telemetry.web_config import WebConfigError, load_web_config
from tests.lab.bounds import at_most
from tests.lab.pki import Authority, Usage

LOOPBACK = Endpoint("127.0.0.1", 0)
PASSWORD = "correct-horse"
HASH = "$2b$04$VEG8wUTl.cdFSf3fxDZmROiv61SmcP.p5WJ5rgj9PsowCFEXEZ9xi"
"""Of PASSWORD, by the package bcrypt 5.0.0."""


class Files:
    """A web configuration file, and certificates beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "web.yml"
        self.authority = Authority("Metrics CA")
        (folder / "ca.pem").write_text(self.authority.certificate)
        self.issue("server", usage="server")

    def issue(self, name: str, addresses: tuple[str, ...] = ("127.0.0.1",), usage: Usage = "client") -> None:
        identity = self.authority.issue(name, usage, addresses=addresses)
        identity.write(self.folder)

    def write(self, **sections: object) -> Path:
        """Replace the file; its signature is another one, even within one tick of the clock."""
        new = self.folder / f"new-{os.urandom(4).hex()}"
        new.write_text(yaml.safe_dump(sections))
        new.replace(self.path)
        return self.path

    def tls(self, **more: object) -> dict[str, object]:
        return {"cert_file": "server.crt", "key_file": "server.key", **more}

    def client(self, name: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Starts servers of a file, which look for changes at every connection."""
    monkeypatch.setattr(web_access, "LOOK_SECONDS", 0.0)
    started: list[MetricsServer] = []

    def start(path: Path, token: str | None = None) -> MetricsServer:
        server = MetricsServer(LOOPBACK, CollectorRegistry(), token, web_config=path)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def get(server: MetricsServer, context: ssl.SSLContext | None = None, password: str | None = None) -> int:
    scheme = "http" if context is None else "https"
    auth = None if password is None else httpx.BasicAuth("prometheus", password)
    with httpx.Client(verify=context if context is not None else True, trust_env=False) as client:
        return client.get(f"{scheme}://{server.endpoint}/metrics", auth=auth, timeout=20).status_code


def test_a_hash_of_another_program_is_matched_by_its_password_alone() -> None:
    assert passwords.is_available()
    assert passwords.matches(PASSWORD.encode(), HASH)
    for wrong in (b"", b"correct-hors", b"correct-horse ", b"correct\0horse", PASSWORD.encode() + b"x" * 80):
        assert not passwords.matches(wrong, HASH)


@pytest.mark.parametrize(
    "text",
    ["secret", "$1$abc$def", HASH[:-1], HASH.replace("$04$", "$31$"), HASH.replace("$04$", "$03$"), ""],
)
def test_what_is_no_usable_hash_is_refused(text: str, files: Files) -> None:
    with pytest.raises(WebConfigError, match=r"basic_auth_users\.prometheus") as caught:
        load_web_config(files.write(basic_auth_users={"prometheus": text}))
    assert text not in str(caught.value) or not text, "no secret in a log"


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"tls": {}}, "tls is not supported here"),
        ({"tls_server_config": {"cert_file": "server.crt"}}, "needs key_file"),
        ({"tls_server_config": {"cert": "PEM"}}, "cert is not supported here"),
        ({"basic_auth_users": ["a"]}, "must be a mapping"),
        ({"http_server_config": {"headers": {"Set-Cookie": "x"}}}, "Set-Cookie cannot be set"),
        ({"http_server_config": {"headers": {"X-Frame-Options": "a\r\nb: c"}}}, "printable"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    sections: dict[str, object], reason: str, files: Files
) -> None:
    with pytest.raises(WebConfigError, match=reason) as caught:
        load_web_config(files.write(**sections))
    assert caught.value.code == "bad_web_config"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"min_version": "TLS10"}, "TLS10 is not supported"),
        ({"client_auth_type": "RequireAnyClientCert", "client_ca_file": "ca.pem"}, "RequireAnyClientCert"),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, "client_ca_file"),
        ({"client_ca_file": "ca.pem"}, "client_auth_type"),
        ({"cert_file": "missing.crt"}, r"cert_file \S+/missing.crt: No such file"),
        ({"key_file": "ca.pem"}, r"server.crt and \S+/ca.pem cannot be used: expected PEM"),
        (
            {"client_ca_file": "web.yml", "client_auth_type": "RequireAndVerifyClientCert"},
            r"client_ca_file \S+/web.yml: no certificates",
        ),
        ({"cipher_suites": ["TLS_RSA_WITH_NOTHING"]}, "cipher"),
    ],
)
def test_tls_that_cannot_be_used_is_refused(more: dict[str, object], reason: str, files: Files) -> None:
    with pytest.raises(WebConfigError, match=reason):
        load_web_config(files.write(tls_server_config=files.tls(**more)))


def test_a_key_may_be_a_credential_of_the_service(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (files.folder / "server.key").rename(credentials / "web.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    found = load_web_config(files.write(tls_server_config=files.tls(key_file="credential:web.key")))
    assert found.files == (files.path, files.folder / "server.crt", credentials / "web.key")


def test_an_error_in_the_file_quotes_no_secret(files: Files) -> None:
    files.path.write_text("basic_auth_users:\n  prometheus: {secret: \n")
    with pytest.raises(WebConfigError, match="line 3: not YAML") as caught:
        load_web_config(files.path)
    assert "secret" not in str(caught.value)


def test_names_of_ciphers_are_those_of_go(files: Files) -> None:
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]
    config = load_web_config(
        files.write(tls_server_config=files.tls(cipher_suites=suites, max_version="TLS12"))
    )
    assert config.tls is not None
    names = {cipher["name"] for cipher in config.tls.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}


def test_users_are_asked_for_their_password(files: Files, serve) -> None:
    server = serve(files.write(basic_auth_users={"prometheus": HASH}))
    assert [get(server), get(server, None, "wrong"), get(server, None, PASSWORD)] == [401, 401, 200]
    answer = httpx.get(f"http://{server.endpoint}/metrics", auth=("stranger", PASSWORD), trust_env=False)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Basic")


def test_token_and_users_are_each_enough(files: Files, serve) -> None:
    server = serve(files.write(basic_auth_users={"prometheus": HASH}), token="t0ken")
    headers = {"Authorization": "Bearer t0ken"}
    assert httpx.get(f"http://{server.endpoint}/metrics", headers=headers, trust_env=False).status_code == 200
    assert get(server, None, PASSWORD) == 200


def test_headers_of_the_file_are_in_every_answer(files: Files, serve) -> None:
    server = serve(files.write(http_server_config={"headers": {"x-frame-options": "deny"}}))
    assert httpx.get(f"http://{server.endpoint}/", trust_env=False).headers["x-frame-options"] == "deny"


def test_a_client_certificate_is_asked_for(files: Files, serve) -> None:
    files.issue("scraper")
    auth = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    server = serve(files.write(tls_server_config=files.tls(**auth)))
    with pytest.raises(httpx.TransportError):
        get(server, files.client())
    assert get(server, files.client("scraper")) == 200


def test_only_certificates_with_an_allowed_name_may_read(files: Files, serve) -> None:
    files.issue("scraper", ("192.0.2.1",))
    files.issue("other", ("192.0.2.2",))
    auth = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    server = serve(files.write(tls_server_config=files.tls(**auth, client_allowed_sans=["192.0.2.1"])))
    assert [get(server, files.client(name)) for name in ("scraper", "other")] == [200, 403]


def test_an_old_tls_version_is_refused(files: Files, serve) -> None:
    server = serve(files.write(tls_server_config=files.tls(min_version="TLS13")))
    old = files.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.TransportError):
        get(server, old)
    assert get(server, files.client()) == 200


def test_a_new_certificate_and_new_users_are_used_at_once(files: Files, serve) -> None:
    server = serve(files.write(tls_server_config=files.tls(), basic_auth_users={"prometheus": HASH}))
    assert get(server, files.client(), PASSWORD) == 200
    files.authority = Authority("Another CA")
    (files.folder / "ca.pem").write_text(files.authority.certificate)
    files.issue("server", usage="server")
    assert get(server, files.client(), PASSWORD) == 200
    files.write(tls_server_config=files.tls(), basic_auth_users={"prometheus": HASH[:-1] + "j"})
    assert get(server, files.client(), PASSWORD) == 401


@pytest.mark.parametrize(
    "sections", [{"basic_auth_users": {"prometheus": "x"}}, {}, {"tls_server_config": {}}]
)
def test_a_file_that_cannot_be_used_any_more_changes_nothing_and_is_reported(
    files: Files, serve, sections: dict[str, object]
) -> None:
    server = serve(files.write(basic_auth_users={"prometheus": HASH}))
    files.write(**sections)
    assert [get(server), get(server, None, PASSWORD)] == [401, 200]
    assert web_access.DUTY in {duty.duty for duty in SUPERVISOR.undone()}
    files.write(basic_auth_users={"prometheus": HASH}, http_server_config={"headers": {}})
    assert get(server, None, PASSWORD) == 200
    assert web_access.DUTY not in {duty.duty for duty in SUPERVISOR.undone()}


def test_a_file_that_comes_after_its_name_is_used_when_it_comes(files: Files, serve) -> None:
    server = serve(files.write(tls_server_config=files.tls()))
    files.write(tls_server_config=files.tls(cert_file="later.crt", key_file="later.key"))
    assert get(server, files.client()) == 200
    assert web_access.DUTY in {duty.duty for duty in SUPERVISOR.undone()}
    files.authority = Authority("Another CA")
    (files.folder / "ca.pem").write_text(files.authority.certificate)
    files.issue("later", usage="server")
    assert get(server, files.client()) == 200
    assert web_access.DUTY not in {duty.duty for duty in SUPERVISOR.undone()}


def test_nobody_listens_beyond_loopback_without_authentication(files: Files) -> None:
    path = files.write(tls_server_config=files.tls())
    with pytest.raises(MetricsServerError) as caught:
        MetricsServer(Endpoint("0.0.0.0", 0), CollectorRegistry(), web_config=path).start()
    assert caught.value.code == "no_authentication"


def test_what_does_not_speak_tls_loses_its_connection_and_harms_nobody(files: Files, serve) -> None:
    server = serve(files.write(tls_server_config=files.tls()))
    with pytest.raises(httpx.TransportError):
        get(server)
    assert get(server, files.client()) == 200


def test_a_known_password_is_compared_once(files: Files, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = passwords.matches

    def counted(password: bytes, stored: str) -> bool:
        compared.append(stored)
        return real(password, stored)

    monkeypatch.setattr(passwords, "matches", counted)
    server = serve(files.write(basic_auth_users={"prometheus": HASH}))
    for _ in range(5):
        assert get(server, None, PASSWORD) == 200
    assert len(compared) == 1
    assert get(server, None, "wrong") == 401
    assert len(compared) == 2


@pytest.mark.parametrize(
    "text",
    [
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_auth_type: [x]}",
        "tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: {a: 1}}",
        'tls_server_config: {cert_file: "a\\0b", key_file: server.key}',
        "basic_auth_users: {a: 2001-13-45}",
        "basic_auth_users: {a: !!int x}",
        "basic_auth_users: {a: !!timestamp x}",
    ],
)
def test_values_of_a_wrong_kind_get_a_plain_answer(files: Files, text: str) -> None:
    files.path.write_text(text)
    with pytest.raises(WebConfigError, match=r"metrics\.web_config_file"):
        load_web_config(files.path)


class Guesses:
    """Counts comparisons that began, each of which takes `seconds`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.count = 0
        self._seconds = seconds
        monkeypatch.setattr(passwords, "matches", self._match)

    def _match(self, password: bytes, stored: str) -> bool:
        self.count += 1
        time.sleep(self._seconds)
        return password == b"right"


def test_a_server_that_ends_compares_no_password_that_still_waited(
    files: Files, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses = Guesses(monkeypatch, 0.5)
    server = serve(files.write(basic_auth_users={"prometheus": HASH}))
    # The second one is followed by a rest of two seconds.
    assert [get(server, None, "wrong") for _ in range(2)] == [401, 401]

    def ask() -> None:
        with suppress(httpx.TransportError):
            get(server, None, "wrong")

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.5)
    server.stop()
    waiting.join(20)
    time.sleep(0.2)
    assert guesses.count == 2


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()


@pytest.mark.measures
def test_a_guesser_who_breaks_off_or_comes_many_times_at_once_gets_a_fifth_of_one_processor(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses, seconds = Guesses(monkeypatch, 0.02), 1.5
    access = WebAccess(file=files.write(basic_auth_users={"alice": HASH}))
    access.load()

    async def attack() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            guessing = [asyncio.create_task(access.allows(basic("wrong"), "192.0.2.1")) for _ in range(8)]
            await asyncio.sleep(0.01)
            for task in guessing:
                task.cancel()
        assert guesses.count <= seconds / 0.02 / 5 + 4
        # Others are answered meanwhile, and what was right once costs nothing.
        began = time.monotonic()
        assert await access.allows(basic("right"), "192.0.2.2")
        assert await access.allows(basic("right"), "192.0.2.1")
        at_most(time.monotonic() - began, 0.5, "answers to others")
        access.close()

    asyncio.run(attack())


def test_a_change_is_seen_in_a_folder_that_only_root_may_enter(
    files: Files, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, a daemon that gave up root reads through its reader, and may ask the kernel for nothing."""
    closed = files.folder / "closed"
    closed.mkdir()
    opened = Files(closed)
    opened.write(tls_server_config=opened.tls(), basic_auth_users={"alice": HASH})
    plain_open, plain_stat = os.open, os.stat

    def refuse(call: Any) -> Any:
        def refusing(path: Any, *rest: Any, **more: Any) -> Any:
            if isinstance(path, str | Path) and closed in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **more)

        return refusing

    monkeypatch.setattr("bridged.files._readers", [lambda path: plain_open(path, os.O_RDONLY)])
    monkeypatch.setattr(os, "open", refuse(plain_open))
    monkeypatch.setattr(os, "stat", refuse(plain_stat))
    server = serve(opened.path)
    auth = ("alice", PASSWORD)
    address = f"https://127.0.0.1:{server.endpoint.port}/metrics"
    client = ssl.create_default_context(cadata=opened.authority.certificate)
    assert httpx.get(address, auth=auth, verify=client).status_code == 200
    monkeypatch.setattr(os, "open", plain_open)
    monkeypatch.setattr(os, "stat", plain_stat)
    opened.write(tls_server_config=opened.tls(), basic_auth_users={"bob": HASH})
    monkeypatch.setattr(os, "open", refuse(plain_open))
    monkeypatch.setattr(os, "stat", refuse(plain_stat))
    assert httpx.get(address, auth=auth, verify=client).status_code == 401
    assert httpx.get(address, auth=("bob", PASSWORD), verify=client).status_code == 200
