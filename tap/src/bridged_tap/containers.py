"""Which container this program runs in, and how its host gives it /dev/net/tun.

Source: systemd's `src/basic/virt.c` (detect_container), the container interface of systemd
(systemd.io/CONTAINER_INTERFACE); lxc.container.conf(5), docker-run(1), systemd-nspawn(1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FILES: Final = (("run/.containerenv", "podman"), (".dockerenv", "docker"))
_NAMES: Final = ("run/host/container-manager", "run/systemd/container")
_DEVICE: Final = "--device /dev/net/tun --cap-add NET_ADMIN"
_CURES: Final = {
    "lxc": "add two lines to the container's configuration on its host (Proxmox: /etc/pve/lxc/ID.conf) and "
    "restart the container: `lxc.cgroup2.devices.allow = c 10:200 rwm` and "
    "`lxc.mount.entry = /dev/net/tun dev/net/tun none bind,create=file`",
    "docker": f"start the container again with `docker run {_DEVICE}`",
    "podman": f"start the container again with `podman run {_DEVICE}`",
    "systemd-nspawn": "start the container again with `systemd-nspawn --bind=/dev/net/tun "
    "--property=DeviceAllow='/dev/net/tun rwm' --capability=CAP_NET_ADMIN`",
    "openvz": "on its host: `vzctl set ID --devnodes net/tun:rw --capability net_admin:on --save`",
}
_CURES_OF_OTHERS: Final = {"lxc-libvirt": "lxc"}


def container_kind(root: Path = Path("/")) -> str:
    """The word that `systemd-detect-virt --container` prints, such as `lxc` or `docker`; empty: no container.

    `root`: the folder that holds proc and run.
    """
    if (root / "proc/vz").exists() and not (root / "proc/bc").exists():
        return "openvz"
    for name in _NAMES:
        if kind := _first_line(root / name):
            return kind
    if kind := _variable(root / "proc/1/environ", "container"):
        return kind
    return next((kind for name, kind in _FILES if (root / name).exists()), "")


def device_cure(kind: str) -> str:
    """What to do where this kind of container has no /dev/net/tun, as the end of a sentence."""
    if not kind:
        return "load the driver (`modprobe tun`), or give the container the device"
    known = _CURES.get(_CURES_OF_OTHERS.get(kind, kind))
    return known or f"give the container ({kind}) the device, and the capability NET_ADMIN"


def _first_line(path: Path) -> str:
    try:
        line = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
    return _word(line)


def _variable(path: Path, name: str) -> str:
    """A variable of a process; empty where this program may not read them."""
    try:
        variables = path.read_bytes().split(b"\0")
    except OSError:
        return ""
    for variable in variables:
        key, _, value = variable.decode(errors="replace").partition("=")
        if key == name:
            return _word(value)
    return ""


def _word(text: str) -> str:
    return "".join(char for char in text[:40] if char.isalnum() or char in "-_.")
