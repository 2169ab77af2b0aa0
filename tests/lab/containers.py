"""What container engines leave a container's root."""

from __future__ import annotations

from typing import Final

DOCKER_CAPABILITIES: Final = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service"),
    *("net_raw", "sys_chroot", "mknod", "audit_write", "setfcap", "net_admin"),
)
"""What Docker gives by default (moby, oci/caps/defaults.go), and `--cap-add NET_ADMIN`."""
