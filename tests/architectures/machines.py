"""The kinds of machine, and an environment of each: Debian's Python and the packages of the lock file.

Nothing is installed: packages are unpacked under build/architectures, and an emulator runs the programs. The
environment's `python` is a script, so that its child processes are emulated, too.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.deb.wheels import closure

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "architectures"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SECONDS = 600.0
FOR_TESTS = (
    *("hypothesis", "iniconfig", "packaging", "pluggy", "pygments", "pytest", "pytest-timeout"),
    *("scapy", "setuptools", "sortedcontainers"),
)
"""What testing needs, of requirements-test.lock, beside what running needs."""
COPIED = (
    *(
        "bridged",
        "tap",
        "tests",
        "scripts",
        "config",
        "deploy",
        "docs",
        "native",
        "pyproject.toml",
        "setup.py",
    ),
    *(
        "Makefile",
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "LICENSE",
    ),
    *("requirements.lock", "requirements-test.lock"),
)
NOT_COPIED = frozenset({"__pycache__", "target", "bench", "build"})
PLATFORMS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")


class MachineError(Exception):
    """An environment could not be made; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind. `name`: Debian's word. `wheels`: the word of wheels for it.

    `debian`: packages that the index has no wheel of, each with the Debian package that stands in for it.
    `suite`: the Debian release. `more`: other packages of it.
    """

    name: str
    emulator: str
    wheels: str
    byte_order: Literal["little", "big"]
    bits: int
    debian: tuple[tuple[str, str], ...] = ()
    suite: str = "bookworm"
    more: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Of its Python, once Debian's packages are unpacked."""
        return (self.root / "usr" / "bin" / "python3").readlink().name.removeprefix("python")

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def root(self) -> Path:
        """Where Debian's packages are unpacked."""
        return self.folder / "root"

    @property
    def python(self) -> Path:
        """Runs Python of this kind; `ready` makes it."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def bridged(self) -> Path:
        """The `bridged` of this checkout, as a program of this kind."""
        return self.python.with_name("bridged")

    @property
    def site_packages(self) -> Path:
        return self.folder / "venv" / "lib" / f"python{self.version}" / "site-packages"


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("arm64", "qemu-aarch64-static", "aarch64", "little", 64),
        Machine(
            *("armhf", "qemu-arm-static", "armv7l", "little", 32),
            debian=(
                ("cffi", "python3-cffi-backend"),
                ("pycparser", "python3-pycparser"),
                ("pyyaml", "python3-yaml"),
            ),
        ),
        # Debian 12's and 13's cryptography are older than what bridged needs; forky may change any day.
        Machine(
            *("s390x", "qemu-s390x-static", "s390x", "big", 64),
            debian=(("cryptography", "python3-cryptography"),),
            suite="forky",
            # For kernel.py.
            more=("busybox-static", "iproute2", "iputils-ping", "procps", "util-linux"),
        ),
    )
}

_UNTRANSLATED_NETLINK = '''"""qemu-user refuses netlink messages that it does not know.

It does not look at duplicated descriptors.
"""

import os
import socket

_Socket = socket.socket


class _Untranslated(_Socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if family == socket.AF_NETLINK and fileno is None:
            with _Socket(family, type, proto) as translated:
                fileno = os.dup(translated.fileno())
        super().__init__(family, type, proto, fileno)


socket.socket = _Untranslated
'''


def ready(machine: Machine) -> Machine:
    """Make the machine's environment, unless an earlier call has made the same.

    Raises:
        MachineError: a program is missing, or the mirror or the index has not what is needed.
    """
    for program, package in ((machine.emulator, "qemu-user-static"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(program) is None:
            raise MachineError(f"{program} is missing: apt-get install {package} (`make test` does)")
    key = _key(machine)
    stamp = machine.folder / "complete"
    with alone(machine.name):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
            shutil.rmtree(machine.folder, ignore_errors=True)
            machine.folder.mkdir(parents=True)
            _unpack_debian(machine)
            _make_environment(machine)
            _install_packages(machine)
            _check(machine)
            stamp.write_text(key, encoding="utf-8")
        paths = f"{checkout()}\n{checkout() / 'tap' / 'src'}\n"
        if (machine.site_packages / "untranslated_netlink.py").exists():
            paths += "import untranslated_netlink\n"
        (machine.site_packages / "checkout.pth").write_text(paths)
    return machine


@functools.cache
def checkout() -> Path:
    """A copy of this checkout, without the native data plane: that is this host's."""
    files = [path for name in COPIED for path in _files(REPOSITORY / name)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    target = FOLDER / "checkouts" / digest.hexdigest()[:16]
    with alone("checkouts"):
        if not target.exists():
            # Only the present one is kept.
            shutil.rmtree(target.parent, ignore_errors=True)
            for path in files:
                copy = target.with_suffix(".new") / path.relative_to(REPOSITORY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
            target.with_suffix(".new").rename(target)
    return target


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = (
        path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix not in {".so", ".pyc"}
    )
    return [path for path in found if not NOT_COPIED.intersection(path.parts)]


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process holds this name."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(machine: Machine) -> str:
    parts = (str(REPOSITORY), MIRROR, Path(__file__).read_text(encoding="utf-8"), _locked(machine))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _unpack_debian(machine: Machine) -> None:
    packages = ("python3", *(package for _, package in machine.debian), *machine.more)
    unpack(machine.name, machine.suite, packages, machine.root)
    # What Debian's base-files links; the emulator looks for the program loader there.
    for name in ("bin", "lib", "lib64"):
        if not (machine.root / name).exists():
            (machine.root / name).symlink_to(f"usr/{name}")


def unpack(architecture: str, suite: str, packages: tuple[str, ...], root: Path) -> None:
    """Debian's packages and what they depend on, as they are; nothing of them is run.

    Raises:
        MachineError: the mirror has not got them.
    """
    # Only the main archive, at one moment: parts of others may be missing for such machines.
    _run(
        *("mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"),
        *('--aptopt=Acquire::Retries "5"', f"--include={','.join(packages)}"),
        # Mirrors may keep the lists of a release in the making longer than these are valid.
        *('--aptopt=Acquire::Check-Valid-Until "false"', suite, str(root)),
        f"deb {MIRROR} {suite} main",
        failure=f"no Debian packages for {architecture} from {MIRROR}; "
        "if that mirror lacks this architecture, set DEBIAN_MIRROR to one that has it",
    )


def _make_environment(machine: Machine) -> None:
    bin_folder = machine.python.parent
    bin_folder.mkdir(parents=True)
    machine.site_packages.mkdir(parents=True)
    home = machine.root / "usr" / "bin"
    (bin_folder.parent / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = true\n")
    _write_program(
        machine.python,
        "#!/bin/sh\n"
        f"export PYTHONPYCACHEPREFIX='{FOLDER / 'pycache'}'\n"
        "unset PYTHONDONTWRITEBYTECODE\n"
        f"exec {machine.emulator} -0 \"$0\" -L '{machine.root}' '{home}/python{machine.version}' \"$@\"\n",
    )
    _write_program(
        machine.bridged,
        f"#!{machine.python}\nimport sys\nfrom bridged.cli.entry import main\nsys.exit(main())\n",
    )
    if machine.byte_order == sys.byteorder:
        (machine.site_packages / "untranslated_netlink.py").write_text(_UNTRANSLATED_NETLINK)


def _write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _locked(machine: Machine) -> str:
    """The part of the lock file that this machine takes from the index."""
    text = (REPOSITORY / "requirements-test.lock").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^([a-z0-9-]+)(==(?:.*\\\n)*.*)$", text, re.MULTILINE))
    stand_ins = {name for name, _ in machine.debian}
    return "".join(
        f"{name}{entries[name]}\n" for name in sorted(closure().union(FOR_TESTS)) if name not in stand_ins
    )


def _install_packages(machine: Machine) -> None:
    lock = machine.folder / "requirements.lock"
    lock.write_text(_locked(machine), encoding="utf-8")
    platforms = (word for name in PLATFORMS for word in ("--platform", f"{name}_{machine.wheels}"))
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *(
            "--only-binary=:all:",
            "--no-compile",
            "--python-version",
            machine.version,
            "--implementation",
            "cp",
        ),
        *("--abi", f"cp{machine.version.replace('.', '')}", "--abi", "abi3", "--abi", "none", *platforms),
        *("--require-hashes", "--target", str(machine.site_packages), "-r", str(lock)),
        failure=f"no wheels for {machine.wheels} from the package index; a package of requirements-test.lock "
        f"without one needs a stand-in of Debian's in {Path(__file__).relative_to(REPOSITORY)}",
    )


def _check(machine: Machine) -> None:
    found = _run(
        *(str(machine.python), "-c", "import struct, sys; print(sys.byteorder, struct.calcsize('P') * 8)"),
        failure=f"{machine.emulator} does not run Python",
    )
    if found.split() != [machine.byte_order, str(machine.bits)]:
        raise MachineError(f"{machine.name}: {machine.byte_order} {machine.bits} expected, found {found}")


def _run(*command: str, failure: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{failure}\n{command[0]}: not done after {SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise MachineError(f"{failure}\n{command[0]}: {done.stderr.strip()[-3000:]}")
    return done.stdout
