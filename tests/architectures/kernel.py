"""A machine of s390x with a kernel of its own: Debian's, in QEMU's system emulation, started from memory.

QEMU's user emulation does not turn the bytes of netlink and of most control messages of sockets. Where the
byte order is the other one, only a kernel of that machine's own says whether they are right.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.architectures.machines import (
    FOLDER,
    MACHINES,
    Machine,
    MachineError,
    alone,
    checkout,
    ready,
    unpack,
)

EMULATOR: Final = "qemu-system-s390x"
MEMORY_MEGABYTES: Final = 1536
SECONDS: Final = 1500.0
# Each behind what it needs.
_MODULES: Final = ("tun", "llc", "stp", "bridge", "veth")
_LEFT_OUT: Final = ("share", "include", "libexec", "lib/modules", "lib/systemd", "lib/dracut")
"""Of /usr: nothing there is run, and the whole tree stays in memory."""
_FIRST: Final = """\
#!/usr/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/busybox LC_ALL=C NO_COLOR=1 HOME=/root
busybox mkdir -p /proc /sys /dev/net /tmp /root /run/netns /var
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir /busybox
busybox --install -s /busybox
mkdir -p /dev/shm && mount -t tmpfs memory /dev/shm
for module in @MODULES@; do insmod /modules/$module.ko || echo "no module $module"; done
ip link set lo up
cd /checkout
echo "begin: $(uname -r -m)"
@SCRIPT@
echo "end: $?"
poweroff -f
"""
_PYTHON: Final = """\
#!/usr/bin/busybox sh
PYTHONPATH=/checkout:/checkout/tap/src:/site-packages exec /usr/bin/python3 "$@"
"""


def machine() -> Machine:
    """Its packages, unpacked.

    Raises:
        MachineError: as `ready`, or the emulator is missing.
    """
    if shutil.which(EMULATOR) is None:
        raise MachineError(f"{EMULATOR} is missing: `make test-architectures` installs it")
    return ready(MACHINES["s390x"])


def _kernel() -> Path:
    """Debian 12's, unpacked. Newer ones compute checksums with vector instructions; QEMU 7.2 gets them wrong,
    and no ping has an answer, not even from loopback.
    """
    folder = FOLDER / "s390x-kernel"
    with alone(folder.name):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            unpack("s390x", "bookworm", ("linux-image-s390x",), folder / "root")
            (folder / "complete").touch()
    return folder / "root"


def run_on_kernel(files: Mapping[str, Path], script: str) -> str:
    """What the console shows of `script`, which a shell runs as root with `files` (name -> source) in /work.

    `bridged` and `python` run this checkout. Raises:
        MachineError: it did not boot, did not end in time, or the script's status is not 0.
    """
    packages, kernel = machine(), _kernel()
    with tempfile.TemporaryDirectory(prefix="s390x-") as scratch:
        folder = Path(scratch)
        _fill(folder / "tree", packages, files, script)
        for name in _MODULES:
            (module,) = kernel.glob(f"lib/modules/*/kernel/**/{name}.ko")
            shutil.copy2(module, folder / "tree" / "modules")
        memory = _pack(packages, folder)
        console = _boot(next(kernel.glob("boot/vmlinuz-*")), memory, folder / "console")
    said = re.search(r"^begin: .*\n([\s\S]*)^end: (\d+)$", console, re.MULTILINE)
    if said is None or said[2] != "0":
        raise MachineError(
            f"s390x: status {said[2] if said else 'unknown'}; the console ends:\n{console[-6000:]}"
        )
    return said[1]


def _fill(tree: Path, packages: Machine, files: Mapping[str, Path], script: str) -> None:
    usr = packages.root / "usr"
    left = {usr / name for name in _LEFT_OUT}
    shutil.copytree(
        usr,
        tree / "usr",
        symlinks=True,
        ignore=lambda folder, names: [name for name in names if Path(folder, name) in left],
    )
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    shutil.copytree(packages.site_packages, tree / "site-packages")
    # It would take the checkout from where the host has it.
    (tree / "site-packages" / "checkout.pth").unlink()
    shutil.copytree(checkout(), tree / "checkout")
    for name in ("modules", "work", "etc", "usr/local/bin"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc" / "group").write_text("root:x:0:\n")
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    for name, source in files.items():
        shutil.copy2(source, tree / "work" / name)
    first = _FIRST.replace("@MODULES@", " ".join(_MODULES)).replace("@SCRIPT@", script)
    _write_program(tree / "init", first)
    _write_program(tree / "usr" / "local" / "bin" / "python", _PYTHON)
    _write_program(
        tree / "usr" / "local" / "bin" / "bridged",
        "#!/usr/local/bin/python\nimport sys\nfrom bridged.cli.entry import main\nsys.exit(main())\n",
    )


def _write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _pack(packages: Machine, folder: Path) -> Path:
    tree, target = folder / "tree", folder / "memory.cpio"
    listing = "".join(f"{path.relative_to(tree)}\0" for path in sorted(tree.rglob("*")))
    with target.open("wb") as file:
        subprocess.run(
            (
                packages.emulator,
                str(packages.root / "usr" / "bin" / "busybox"),
                "cpio",
                "-0",
                "-o",
                "-H",
                "newc",
            ),
            input=listing.encode(),
            cwd=tree,
            stdout=file,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=SECONDS,
        )
    shutil.rmtree(tree)
    return target


def _boot(kernel: Path, memory: Path, log: Path) -> str:
    with log.open("wb") as file:
        process = subprocess.Popen(
            (
                *(EMULATOR, "-accel", "tcg", "-smp", "1", "-m", str(MEMORY_MEGABYTES), "-nodefaults"),
                *("-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
                *("-chardev", "stdio,id=console", "-device", "sclpconsole,chardev=console"),
                *("-kernel", str(kernel), "-initrd", str(memory), "-append", "panic=-1 quiet"),
            ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            file.write(f"\nstill running after {SECONDS:.0f} s\n".encode())
        finally:
            process.kill()
            process.wait()
    return log.read_text(errors="replace").replace("\r\n", "\n")
