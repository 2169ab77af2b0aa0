"""Names of credentials, inherited descriptors, and the line of status."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridged.configuration import load
from bridged.runtime.service.descriptors import DescriptorStore, take_inherited
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.service.reporter import one_line, status_line, watchdog_seconds

TEXT = """
bridges: {br0: {}}
tunnels:
  main:
    role: client
    bridge: br0
    remotes: [192.0.2.1]
    tls: {ca: ca.crt, certificate: "credential:site.crt", key: "credential:%s"}
"""


def test_a_credential_is_a_file_of_the_service_managers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/bridged@office.service")
    (tmp_path / "site.yaml").write_text(TEXT % "site.key")
    tls = load(tmp_path / "site.yaml").tunnels["main"].tls
    assert tls.certificate == "/run/credentials/bridged@office.service/site.crt"
    assert tls.key == "/run/credentials/bridged@office.service/site.key"
    assert tls.ca == str(tmp_path / "ca.crt")


def test_a_credential_cannot_lead_out_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    (tmp_path / "site.yaml").write_text(TEXT % "../../../etc/shadow")
    key = load(tmp_path / "site.yaml").tunnels["main"].tls.key
    assert key is not None
    assert Path(key).is_relative_to(tmp_path)


def test_descriptors_that_were_meant_for_another_process_are_not_touched() -> None:
    environment = {"LISTEN_FDS": "3", "LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDNAMES": "a:b:c"}
    assert take_inherited(environment) == {}
    assert environment == {}


def test_descriptors_with_foreign_names_are_not_taken() -> None:
    numbers = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    names = ("tap/office/0", "tap/office/x", "tap/office/²")
    store = DescriptorStore(ServiceManager(), {name: [one] for name, one in zip(names, numbers, strict=True)})
    assert store.take("tap/office") == (numbers[0],)
    store.forget("tap/office")
    os.close(numbers[0])
    for number in numbers[1:]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_the_admin_api_takes_no_listener_on_a_port_and_only_one_listener(tmp_path: Path) -> None:
    open_port = socket.create_server(("127.0.0.1", 0))
    paths = []
    for name in ("a.sock", "b.sock"):
        paths.append(socket.socket(socket.AF_UNIX))
        paths[-1].bind(str(tmp_path / name))
        paths[-1].listen()
    inherited = [one.detach() for one in (open_port, *paths)]
    store = DescriptorStore(ServiceManager(), {"admin": inherited})
    with capture_logs() as logs:
        found = store.take_listener("admin", {socket.AF_UNIX})
    assert found is not None
    with found:
        assert found.getsockname() == str(tmp_path / "a.sock")
    assert [(log["event"], log["name"]) for log in logs] == [("descriptor_unusable", "admin")] * 2
    assert store.take_listener("admin", {socket.AF_UNIX}) is None


def test_the_status_counts_in_words_and_names_what_is_not_done() -> None:
    assert status_line(1, 0) == "1 tunnel, 0 peers"
    assert status_line(2, 14, ["tap", "bridge", "tap"]) == "2 tunnels, 14 peers, not done: bridge tap"


def test_a_rejection_cannot_add_lines_to_a_message() -> None:
    assert one_line("a\nREADY=1\x1b[0m") == "a READY=1?[0m"
    assert len(one_line("x" * 1000)) == 200


def test_signs_of_life_are_for_the_process_that_is_asked() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) == 0.0
    assert watchdog_seconds({}) == 0.0
