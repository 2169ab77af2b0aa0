"""The recording rules. Pure: no I/O."""

from __future__ import annotations

from typing import Final, get_args

from bridged.catalogue.counters import DROP_REASONS, DropClass
from scripts.monitoring.model import Recording

_TP: Final = "instance,tunnel,peer"

_SKIPPED: Final = f'sum by ({_TP}) (rate(bridged_peer_sequence_total{{event="skipped"}}[5m]))'
_LATE: Final = f'sum by ({_TP}) (rate(bridged_peer_sequence_total{{event="late"}}[5m]))'
_LOST: Final = f"({_SKIPPED} - {_LATE})"
_CAME: Final = f'sum by ({_TP}) (rate(bridged_peer_wire_datagrams_total{{direction="receive"}}[5m]))'


def reasons_of(group: DropClass) -> str:
    """A regular expression of all drop reasons of a class."""
    return "|".join(reason.name for reason in DROP_REASONS if reason.group == group)


def _drops(group: DropClass) -> Recording:
    chosen = f'bridged_drops_total{{reason=~"{reasons_of(group)}"}}'
    return Recording(
        "tunnel_class:bridged_drops:rate5m",
        f"sum by (instance,tunnel,direction) (rate({chosen}[5m]))",
        {"class": group},
    )


RECORDINGS: Final = (
    Recording(
        "tunnel_peer:bridged_bits:rate5m",
        f"8 * sum by ({_TP},direction) (rate(bridged_peer_bytes_total[5m]))",
    ),
    Recording(
        "tunnel_peer:bridged_flood_ratio:rate5m",
        f'sum by ({_TP}) (rate(bridged_peer_frames_total{{kind!="unicast"}}[5m])) / '
        f"clamp_min(sum by ({_TP}) (rate(bridged_peer_frames_total[5m])), 1)",
    ),
    Recording("tunnel_peer:bridged_loss:ratio5m", f"clamp_min({_LOST}, 0) / clamp_min({_LOST} + {_CAME}, 1)"),
    Recording(
        "tunnel:bridged_handshake_failures:ratio15m",
        'sum by (instance,tunnel) (increase(bridged_handshakes_total{outcome!="established"}[15m])) / '
        "clamp_min(sum by (instance,tunnel) (increase(bridged_handshakes_total[15m])), 1)",
    ),
    *(_drops(group) for group in get_args(DropClass)),
    Recording(
        "instance:bridged_cpu_seconds_per_gigabyte:5m",
        "1e9 * sum by (instance) (rate(bridged_thread_cpu_seconds_total[5m])) / "
        "clamp_min(sum by (instance) (rate(bridged_peer_bytes_total[5m])), 1e5)",
    ),
)
