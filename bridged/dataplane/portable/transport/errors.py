"""What the errors of a socket mean: drop reasons, and why the kernel refuses a batch.

Source: udp(7), ip(7), sendmsg(2); docs/reference/metrics.md, "Drop reasons".
"""

from __future__ import annotations

import errno
from typing import Final

_DROP_REASONS: Final = {
    errno.EAGAIN: "udp_send_full",
    errno.ENOBUFS: "udp_send_full",
    errno.ENOMEM: "udp_send_full",
    errno.EMSGSIZE: "emsgsize",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.EAFNOSUPPORT: "unreachable",
    errno.ENODEV: "unreachable",
    errno.ECONNREFUSED: "refused",
    errno.EPERM: "refused",
}
BATCH_REFUSALS: Final = {errno.EIO: "eio", errno.EINVAL: "einval", errno.EMSGSIZE: "emsgsize"}
"""Errors of a send with UDP_SEGMENT that concern the batch, and the cause that is counted."""
SOURCE_GONE: Final = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH})
"""Errors that a pinned source may cause whose address has gone."""


def drop_reason(number: int | None) -> str:
    """The drop reason for an errno."""
    return _DROP_REASONS.get(number or 0, "io_error")
