"""The virtual machine's files: a Debian system with systemd, its kernel, and what mounts the system.

mmdebstrap takes the packages from Debian's mirror. An image is kept below build/appliance, named after its
recipe, which is this file; the machine never writes to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "appliance"
SUITES = {12: "bookworm", 13: "trixie"}
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "iputils-ping", "procps"),
    *("python3", "python3-cffi-backend", "busybox-static"),
)
"""python3 and its module are what bridged.deb depends on: the machine has no network to fetch them from."""
KERNEL = "linux-image-cloud-amd64"
SIZE = "2G"
BUILD_SECONDS = 1200
FIRST_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
"""Loaded before the system is mounted; a kernel that has one of them built in needs no file."""

# Only what a unit of the package waits for, or a test looks at, starts at boot.
_MASKED = (
    *(
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
        "serial-getty@hvc0.service",
        "getty-static.service",
    ),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "systemd-networkd.service", "systemd-firstboot.service"),
    "systemd-pcrphase.service",
)
_AGENT_UNIT = """\
[Unit]
Description=Commands of the test
[Service]
ExecStart=/bin/sh -c 'mkdir -p /run/lab && tar -xf /dev/vdb -C /run/lab && exec python3 -I /run/lab/agent.py'
StandardOutput=journal+console
KillMode=process
[Install]
WantedBy=multi-user.target
"""
_INIT = """\
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in @MODULES@; do insmod /modules/$module.ko; done
until mount -t ext4 -o rw /dev/vda /system; do sleep 0.1; done
umount /proc
mount --move /dev /system/dev
exec switch_root /system /sbin/init
"""
_APPLETS = ("sh", "mount", "umount", "insmod", "sleep", "switch_root")


class ImageError(Exception):
    """A file for the machine could not be had; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Image:
    """Paths of what the emulator boots."""

    kernel: Path
    initramfs: Path
    disk: Path


def image(debian: int) -> Image:
    """The image of Debian `debian` (12 or 13): the kept one, or a new one, which takes minutes.

    Raises:
        ImageError: no network, or a program is missing or has failed.
    """
    recipe = f"{Path(__file__).read_text()} {debian}"
    folder = FOLDER / f"debian-{debian}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    made = Image(folder / "vmlinuz", folder / "initramfs", folder / "system.ext4")
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in FOLDER.glob(f"debian-{debian}-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=FOLDER, prefix="making-") as scratch:
            _build(debian, Path(scratch))
            shutil.rmtree(Path(scratch, "root"))
            Path(scratch).rename(folder)
            Path(scratch).mkdir()
    return made


def _run(*argv: str) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{argv[0]}: {error}; `make test-appliance` installs what it needs") from error
    if done.returncode != 0:
        raise ImageError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def _build(debian: int, folder: Path) -> None:
    root = folder / "root"
    # The kernel is unpacked, not installed: its scripts would make an initramfs that nothing boots.
    fetch = (
        'name=$(apt-cache depends "$KERNEL" | sed -n "s/^ *Depends: //p" | grep ^linux-image- | head -1); '
        'cd "$1/tmp"; apt-get -o APT::Sandbox::User=root download "$name"; '
        # `dpkg-deb -x` would put a folder in the place of the link /lib.
        'dpkg-deb --fsys-tarfile "$name"_*.deb | tar -x --keep-directory-symlink -C "$1"; '
        'rm "$name"_*.deb'
    )
    hook = f"set -e; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG KERNEL={KERNEL}; {fetch}"
    _run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--customize-hook={hook}", SUITES[debian], str(root), MIRROR),
    )
    _configure(root)
    shutil.move(next((root / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    _pack_initramfs(root, folder / "initramfs")
    disk = folder / "system.ext4"
    _run("truncate", f"--size={SIZE}", str(disk))
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk))


def _configure(root: Path) -> None:
    version = next((root / "lib" / "modules").iterdir()).name
    _run("chroot", str(root), "depmod", version)
    (root / "etc" / "hostname").write_text("appliance\n")
    # A machine without an id takes its next boot for the first one, which presets every unit.
    (root / "etc" / "machine-id").write_text(f"{hashlib.md5(b'appliance').hexdigest()}\n")
    (root / "etc" / "fstab").write_text("/dev/vda / ext4 rw 0 0\n")
    units = root / "etc" / "systemd" / "system"
    for name in _MASKED:
        (units / name).symlink_to("/dev/null")
    (units / "lab-agent.service").write_text(_AGENT_UNIT)
    _run("chroot", str(root), "systemctl", "--quiet", "enable", "lab-agent.service")


def _pack_initramfs(root: Path, target: Path) -> None:
    tree = target.with_name("first")
    for name in ("bin", "dev", "proc", "modules", "system"):
        (tree / name).mkdir(parents=True)
    busybox = tree / "bin" / "busybox"
    shutil.copy2(next(path for path in root.glob("*bin/busybox")), busybox)
    for name in _APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    version = next((root / "lib" / "modules").iterdir()).name
    loaded: list[str] = []
    for module in FIRST_MODULES:
        steps = _run("chroot", str(root), "modprobe", "--set-version", version, "--show-depends", module)
        for line in steps.splitlines():
            if line.startswith("insmod "):
                _unpack_module(root / line.split()[1].lstrip("/"), tree / "modules", loaded)
    (tree / "init").write_text(_INIT.replace("@MODULES@", " ".join(loaded)))
    (tree / "init").chmod(0o755)
    listing = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with target.open("wb") as file:
        done = subprocess.run(
            (str(busybox), "cpio", "-o", "-H", "newc"),
            input=listing.encode(),
            cwd=tree,
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode != 0:
        raise ImageError(f"cpio: {done.stderr.decode(errors='replace')}")
    shutil.rmtree(tree)


def _unpack_module(source: Path, folder: Path, loaded: list[str]) -> None:
    name = source.name.split(".ko")[0]
    if name in loaded:
        return
    if source.suffix == ".xz":
        with (folder / f"{name}.ko").open("wb") as file:
            subprocess.run(("xz", "-dc", str(source)), stdout=file, check=True)
    else:
        shutil.copyfile(source, folder / f"{name}.ko")
    loaded.append(name)
