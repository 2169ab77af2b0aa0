"""Real OpenVPN without any network: what it says of certificates, keys and names, within a second."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.openvpn import INSTALLED, openvpn_program
from tests.lab.pki import Identity, write_private
from tests.lab.processes import Process, environment

READY = "link remote"
"""In its log once all keys are loaded."""
STARTED = (READY, "Attempting to establish TCP connection")
"""The same by UDP and by TCP, where nobody may listen."""

PORT = "20000"


def trust_options(folder: Path, identity: Identity, authority: str) -> list[str]:
    """Options with the files of one end, which this writes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / "ca", authority)
    write_private(folder / "cert", identity.certificate)
    write_private(folder / "key", identity.key)
    return [word for name in ("ca", "cert", "key") for word in (f"--{name}", str(folder / name))]


@contextmanager
def openvpn_alone(log: Path, options: Sequence[str], release: str = INSTALLED) -> Iterator[Process]:
    """An OpenVPN process on the loopback interface, without an adapter; killed at the end."""
    argv = [openvpn_program(release), *options, "--dev", "null", "--verb", "4"]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env=environment())
    try:
        yield Process(process, argv, log)
    finally:
        process.kill()
        process.wait(10)


def verdict(
    folder: Path,
    judge: tuple[Identity, Sequence[str]],
    peer: tuple[Identity, Sequence[str]],
    authority: str,
    words: tuple[str, ...],
    release: str = INSTALLED,
) -> str:
    """The log of the end that judges the other's certificate, once it has one of `words`.

    Each end: its identity and further options. The judge is the TLS client.
    """
    # An address of its own, and a port that the kernel hands to nobody: a free one may be taken meanwhile.
    address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    common = ("--proto", "udp4", "--port", PORT)
    ends = {}
    for role, (identity, options) in (("server", peer), ("client", judge)):
        where = ("--local", address, "--dh", "none")
        if role == "client":
            where = ("--remote", address, PORT, "--nobind")
        trust = trust_options(folder / role, identity, authority)
        ends[role] = (f"--tls-{role}", *common, *where, *trust, *options)
    with openvpn_alone(folder / "server.log", ends["server"], release) as server:
        server.wait_for_output(READY, 10)
        with openvpn_alone(folder / "client.log", ends["client"], release) as client:
            client.wait_for_output(words, 10)
            return client.output()


def loads(log: Path, options: Sequence[str], release: str = INSTALLED) -> bool:
    """Whether a client of OpenVPN can load its keys."""
    return starts(
        log, ("--client", "--nobind", "--proto", "udp4", "--remote", "127.0.0.1", *options), release
    )


def starts(log: Path, options: Sequence[str], release: str = INSTALLED) -> bool:
    """Whether OpenVPN takes all options, and loads what they name."""
    with openvpn_alone(log, options, release) as process:
        process.wait_for_output((*STARTED, "Exiting due to fatal error", "Use --help"), 10)
        return any(words in process.output() for words in STARTED)
