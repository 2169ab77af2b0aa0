"""Stages the whole package and runs dpkg-deb: the same tree gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from scripts.deb import completion, manual
from scripts.deb.environment import SITE, add_native, make_environment, strip_modules
from scripts.deb.targets import Target

SOURCE: Final = Path("deploy/debian")
UNITS: Final = Path("deploy/systemd")
MAINTAINER: Final = "bridged maintainers <maintainers@bridged.invalid>"
"""Unless the build says who publishes the package: the project has no address that somebody reads."""
_ADDRESS: Final = re.compile(r"[^<>@,\n]*[^<>@,\s] <[^<>@\s]+@[^<>@\s]+>")
DOCUMENTS: Final = Path("usr/share/doc/bridged")

_COPIES: Final = {
    "bridged.yaml": ("etc/bridged/bridged.yaml", 0o644),
    "needrestart.conf": ("etc/needrestart/conf.d/bridged.conf", 0o644),
    "bridged.sysusers": ("usr/lib/sysusers.d/bridged.conf", 0o644),
    "bridged.tmpfiles": ("usr/lib/tmpfiles.d/bridged.conf", 0o644),
    "bridged.rtupdate": ("usr/share/python3/runtime.d/bridged.rtupdate", 0o755),
    "firewalld.xml": ("usr/lib/firewalld/services/bridged.xml", 0o644),
    "networkmanager.conf": ("usr/lib/NetworkManager/conf.d/bridged.conf", 0o644),
    "networkd.network": ("usr/lib/systemd/network/05-bridged.network", 0o644),
    "bug-script": ("usr/share/bug/bridged", 0o755),
    "launcher": ("usr/bin/bridged", 0o755),
    "lintian-overrides": ("usr/share/lintian/overrides/bridged", 0o644),
}
_CONFFILES: Final = ("/etc/bridged/bridged.yaml", "/etc/needrestart/conf.d/bridged.conf")
_MONITORING: Final = ("prometheus", "grafana")
_PAGES: Final = ("[a-z]*.md", "reference/*.md", "runbooks/*.md", "guides/*.md", "**/*.png", "**/*.svg")
"""Pages for operators; links to others lead to the sources."""
_SCRIPTS: Final = ("postinst", "prerm", "postrm")
_COMMON_LICENCES: Final = (
    ("Apache-2.0", r"Apache License\s+Version 2\.0, January 2004"),
    ("GPL-2", r"GNU GENERAL PUBLIC LICENSE\s+Version 2, June 1991"),
)
_TEXT: Final = """\
 One daemon joins the Ethernet of remote sites: it makes or adopts a kernel
 bridge, adds a TAP adapter, and carries its frames over UDP to other bridged
 daemons or to OpenVPN 2.4 and later in TAP mode, as server or client.
"""
_NATIVE_TEXT: Final = """\
 .
 This package has the native data plane.
"""
_PORTABLE_TEXT: Final = """\
 .
 This build has the portable data plane only, in Python, which is slower.
"""


@dataclass(frozen=True, slots=True)
class Build:
    """What one package is made of. `epoch`: seconds since 1970, the date of everything in it."""

    target: Target
    version: str
    epoch: int
    wheels: tuple[Path, ...]
    native: Path | None
    notices: str
    """Licences of the Rust packages in the native data plane."""
    maintainer: str = MAINTAINER


def check_maintainer(text: str) -> str:
    """A `Maintainer:` as Debian wants it (policy 5.6.2).

    Raises:
        ValueError: it is something else.
    """
    if not _ADDRESS.fullmatch(text):
        raise ValueError(f"MAINTAINER={text!r}: expected 'Full Name <address@example.org>'")
    return text


def stage(build: Build, folder: Path) -> None:
    """Make the tree that becomes the package. `folder` must not exist."""
    folder.mkdir(parents=True, mode=0o755)
    licences = make_environment(folder, build.wheels, build.target)
    if build.native is not None:
        add_native(folder, build.native)
    strip_modules(folder, build.target)
    for name, (destination, mode) in _COPIES.items():
        _copy(SOURCE / name, folder / destination, mode)
    (folder / "etc/bridged/conf.d").mkdir()
    for unit in sorted(UNITS.iterdir()):
        if unit.suffix in (".service", ".socket"):
            _copy(unit, folder / "usr/lib/systemd/system" / unit.name, 0o644)
    manual.write(folder / "usr/share/man", build.epoch)
    completion.write(folder / "usr/share")
    _write_documents(build, folder / DOCUMENTS, licences)
    _write_control(build, folder)
    _settle(folder, build.epoch)


def pack(folder: Path, output: Path, epoch: int, level: int) -> None:
    """Run dpkg-deb on a staged tree, with xz at `level` (0 to 9)."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # One thread: how xz cuts the data must not depend on the number of processors.
    options = ("--root-owner-group", "--uniform-compression", "-Zxz", f"-z{level}", "--threads-max=1")
    subprocess.run(
        ["dpkg-deb", *options, "--build", str(folder), str(output)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )


def _copy(source: Path, destination: Path, mode: int) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
    destination.chmod(mode)


def _write_documents(build: Build, folder: Path, licences: Mapping[str, list[str]]) -> None:
    for example in sorted((SOURCE / "examples").iterdir()):
        _copy(example, folder / "examples" / example.name, 0o644)
    for example in sorted(Path("config/examples").glob("*.yaml")):
        text = example.read_text(encoding="utf-8").replace("$schema=../", "$schema=")
        (folder / "examples" / example.name).write_text(text, encoding="utf-8")
    _copy(Path("config/bridged.schema.json"), folder / "examples/bridged.schema.json", 0o644)
    for tool in _MONITORING:
        for path in sorted((SOURCE.parent / tool).rglob("*")):
            if path.is_file():
                _copy(path, folder / "examples" / tool / path.relative_to(SOURCE.parent / tool), 0o644)
    for page in [
        Path("docs/README.md"),
        *(page for name in _PAGES for page in sorted(Path("docs").glob(name))),
    ]:
        _copy(page, folder / page, 0o644)
    _write_compressed(folder / "changelog.gz", Path("CHANGELOG.md").read_text(encoding="utf-8"))
    date = format_datetime(datetime.fromtimestamp(build.epoch, UTC))
    entry = f"bridged ({build.version}) stable; urgency=medium\n\n  * See changelog.gz.\n\n"
    entry += f" -- {build.maintainer}  {date}\n"
    _write_compressed(folder / "changelog.Debian.gz", entry)
    (folder / "copyright").write_text(_copyright(build, licences), encoding="utf-8")


def _copyright(build: Build, licences: Mapping[str, list[str]]) -> str:
    parts = [
        "bridged joins remote LANs at layer 2. Its own files are under this licence:\n",
        Path("LICENSE").read_text(encoding="utf-8"),
        "\nThe Python packages in /usr/lib/bridged are under these licences:\n",
    ]
    for title, texts in sorted(licences.items()):
        parts.append(f"\n{'=' * 78}\n{title}\n{'=' * 78}\n")
        parts += [text.rstrip() + "\n" for text in texts]
    if build.notices:
        parts.append(f"\n{'=' * 78}\n{build.notices}")
    text = "\n".join(line.rstrip() for line in "\n".join(parts).splitlines())
    for name, beginning in _COMMON_LICENCES:
        place = f"The text of {name} is in /usr/share/common-licenses/{name}."
        text = re.sub(rf"[ ]*{beginning}.*?END OF TERMS AND CONDITIONS", place, text, flags=re.DOTALL)
    return f"{text}\n"


def _write_control(build: Build, folder: Path) -> None:
    control = folder / "DEBIAN"
    control.mkdir(mode=0o755)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in files if control not in path.parents]
    sizes = sum(-(-path.stat().st_size // 1024) for path in files)
    folders = sum(1 for path in folder.rglob("*") if path.is_dir())
    kind = "native" if build.native is not None else "portable data plane"
    synopsis = f"Ethernet bridging over the OpenVPN wire protocol{'' if kind == 'native' else ' (portable)'}"
    values = {
        "VERSION": build.version,
        "ARCH": build.target.name,
        "MAINTAINER": build.maintainer,
        "SIZE": str(sizes + folders),
        "DEPENDS": ", ".join(_depends(build, folder)),
        "SYNOPSIS": synopsis,
    }
    text = _filled((SOURCE / "control").read_text(encoding="utf-8"), values)
    text += _TEXT + (_NATIVE_TEXT if build.native is not None else _PORTABLE_TEXT)
    (control / "control").write_text(text, encoding="utf-8")
    units = sorted(path.name for path in (folder / "usr/lib/systemd/system").iterdir())
    script_values = {
        "UNITS": " ".join(units),
        "SOCKETS": " ".join(unit for unit in units if unit.endswith(".socket")),
    }
    for name in _SCRIPTS:
        text = _filled((SOURCE / name).read_text(encoding="utf-8"), script_values)
        (control / name).write_text(text, encoding="utf-8")
    (control / "conffiles").write_text("".join(f"{name}\n" for name in _CONFFILES), encoding="utf-8")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(folder)}\n"
        for path in files
        if f"/{path.relative_to(folder)}" not in _CONFFILES
    ]
    (control / "md5sums").write_text("".join(sums), encoding="utf-8")


def _depends(build: Build, folder: Path) -> list[str]:
    modules = [path for path in (folder / SITE).rglob("*.so") if not path.is_symlink()]
    found = b"\n".join(path.read_bytes() for path in modules)
    versions = [tuple(map(int, match.split(b"."))) for match in re.findall(rb"GLIBC_(\d+\.\d+)\b", found)]
    glibc = ".".join(map(str, max(versions)))
    return [
        f"libc6 (>= {glibc})",
        *(["libgcc-s1"] if b"libgcc_s.so.1" in found else []),
        *(["python3-cffi-backend"] if "cffi" in build.target.borrowed else []),
        # The Pythons that the compiled modules are for.
        "python3 (>= 3.11), python3 (<< 3.12) | python3 (>= 3.13), python3 (<< 3.14)",
        "systemd | systemd-standalone-sysusers | systemd-sysusers",
        "systemd | systemd-standalone-tmpfiles | systemd-tmpfiles",
    ]


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _write_compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No name and no date inside.
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _settle(folder: Path, epoch: int) -> None:
    """Modes and dates that depend on nobody's umask and clock."""
    programs = {folder / destination for destination, mode in _COPIES.values() if mode == 0o755}
    programs |= {folder / "DEBIAN" / script for script in _SCRIPTS}
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in programs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
