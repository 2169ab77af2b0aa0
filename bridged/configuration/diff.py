"""The differences between two configurations, and what each costs.

Pure: no I/O. The result contains no values: some of them are secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from bridged.configuration.schema import Bridge, Configuration
from bridged.configuration.tunnel import Tunnel

Effect = Literal["hot", "restart", "refused"]
"""`hot`: applied while running. `restart`: the tunnel or bridge restarts. `refused`: needs a new daemon."""

EFFECTS: Final[tuple[tuple[str, Effect], ...]] = (
    ("state_directory", "refused"),
    ("admin.socket", "refused"),
    ("user", "refused"),
    ("metrics.listen", "refused"),
    ("log.format", "refused"),
    ("metrics.bearer_token_file", "refused"),
    ("metrics.web_config_file", "refused"),
    ("log", "hot"),
    ("metrics", "hot"),
    ("bridges.NAME.mac", "restart"),
    ("bridges.NAME.move_addresses", "restart"),
    ("bridges", "hot"),
    ("tunnels.NAME.peers", "hot"),
    ("tunnels.NAME.peers_max", "hot"),
    ("tunnels.NAME.duplicate_names", "hot"),
    ("tunnels.NAME.push", "hot"),
    ("tunnels.NAME.tls", "hot"),
    ("tunnels.NAME.login", "hot"),
    ("tunnels.NAME.clients", "hot"),
    ("tunnels.NAME.only_known_clients", "hot"),
    ("tunnels.NAME.address_pool", "hot"),
    ("tunnels.NAME.authentication.client_certificate", "restart"),
    ("tunnels.NAME.authentication", "hot"),
    ("tunnels.NAME.exit_notify", "hot"),
    ("tunnels.NAME.status", "hot"),
    ("tunnels.NAME.handshake_seconds", "hot"),
    ("tunnels.NAME.transition_seconds", "hot"),
    ("tunnels", "restart"),
)
"""Key pattern -> effect. The first row that names the key or a section above it decides."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs: its dotted name, how it differs, and the effect."""

    key: str
    kind: Literal["added", "removed", "changed"]
    effect: Effect


def effect_of(pattern: str) -> Effect:
    """The effect of a change of the key `pattern` (`tunnels.NAME.push`)."""
    for prefix, effect in EFFECTS:
        if pattern == prefix or pattern.startswith(prefix + "."):
            return effect
    return "restart"


def diff(old: Configuration, new: Configuration) -> list[Change]:
    """All changed keys in schema order. A whole bridge or tunnel counts as one change."""
    return list(_changes(old.model_dump(), new.model_dump(), (), ()))


def tunnel_effect(old: Tunnel, new: Tunnel) -> Effect | None:
    """The effect of changing one tunnel to the other; None if they are equal."""
    return _worst(old.model_dump(), new.model_dump(), ("tunnels", "NAME"))


def bridge_effect(old: Bridge, new: Bridge) -> Effect | None:
    """The same for a bridge. A change that must undo something on the host forces a restart."""
    effect = _worst(old.model_dump(), new.model_dump(), ("bridges", "NAME"))
    keeps_all = set(old.ports) <= set(new.ports) and set(old.addresses) <= set(new.addresses)
    gives_up = any(value is not None and getattr(new, name) is None for name, value in old)
    return effect if effect is None or (keeps_all and not gives_up) else "restart"


def _worst(old: dict[str, Any], new: dict[str, Any], pattern: tuple[str, ...]) -> Effect | None:
    effects = {change.effect for change in _changes(old, new, pattern, pattern)}
    order: tuple[Effect, ...] = ("refused", "restart", "hot")
    return next((effect for effect in order if effect in effects), None)


def _changes(
    old: dict[str, Any], new: dict[str, Any], path: tuple[str, ...], pattern: tuple[str, ...]
) -> Iterator[Change]:
    is_named = pattern in (("bridges",), ("tunnels",), ("tunnels", "NAME", "clients"))
    for name in [*old, *(name for name in new if name not in old)]:
        here, shape = (*path, name), (*pattern, "NAME" if is_named else name)
        effect = effect_of(".".join(shape))
        if name not in new:
            yield Change(".".join(here), "removed", effect)
        elif name not in old:
            yield Change(".".join(here), "added", effect)
        elif isinstance(old[name], dict) and isinstance(new[name], dict):
            yield from _changes(old[name], new[name], here, shape)
        elif old[name] != new[name]:
            yield Change(".".join(here), "changed", effect)
