"""The whole file: its sections about this host, and its tunnels.

Unknown keys are refused. Names contain the units. `load` adds file and line to errors.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bridged.configuration.section import Section
from bridged.configuration.tunnel import Tunnel
from bridged.configuration.values import (
    InterfaceName,
    checked_endpoint,
    checked_interface_address,
    checked_unicast,
)
from bridged.link_planning.vlans import parse_vlans

DEFAULT_METRICS_PORT = 9743


class Log(Section):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important events to write"
    )
    format: Literal["auto", "console", "json", "journald"] = Field(
        "auto", description="auto: console on a terminal, journald under systemd, else json"
    )


class Metrics(Section):
    """Prometheus metrics over HTTP."""

    listen: str | None = Field("127.0.0.1:9743", description="host:port of /metrics; null turns it off")
    bearer_token_file: Path | None = Field(
        None, description="this or `web_config_file` is required unless `listen` is loopback"
    )
    web_config_file: Path | None = Field(
        None,
        description="TLS, client certificates and users with passwords, in the format of Prometheus' "
        "exporters; followed while the daemon runs",
    )
    max_peers: int = Field(500, ge=1, description="peers that get their own series; all others are summed")
    peer_retention_seconds: float = Field(
        86400,
        ge=0,
        description="how long a disconnected peer keeps its series; configured peers always keep theirs",
    )
    peer_label: Literal["name", "hash", "none"] = Field(
        "name",
        description="what the label `peer` shows: the name, a hash of it, or nothing (all peers summed)",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        return value if value is None else checked_endpoint(value, DEFAULT_METRICS_PORT)


class Admin(Section):
    """The API behind `bridged status`, `reload`, `confirm`, `kick` and `revoke`."""

    socket: Path = Field(Path("/run/bridged/bridged.sock"), description="Unix socket, mode 0600")


class Bridge(Section):
    """A kernel bridge. An existing one is adopted; otherwise it is made."""

    ports: tuple[InterfaceName, ...] = Field((), description="LAN interfaces that join the bridge")
    addresses: tuple[str, ...] = Field((), description="addresses of the bridge, as 192.0.2.1/24")
    mtu: int | None = Field(
        None,
        ge=576,
        le=65535,
        description="MTU of bridge and LAN ports; default: that of the LAN ports",
    )
    mac: str | None = Field(
        None, description="fixed MAC address; default: one that stays when ports come and go"
    )
    stp: bool | None = Field(None, description="spanning tree; default: off on a bridge that we make")
    ageing_seconds: float | None = Field(
        None, ge=0, description="time after which the bridge forgets a silent station"
    )
    forward_delay_seconds: float | None = Field(
        None, ge=0, le=30, description="spanning tree: time in listening and in learning"
    )
    group_forward_mask: int | None = Field(
        None,
        ge=0,
        le=0xFFF8,
        description="link-local groups 01-80-C2-00-00-0X that are forwarded (group_fwd_mask); 16384 is LLDP",
    )
    move_addresses: bool = Field(True, description="move the ports' addresses and routes to the bridge")
    vlans: tuple[str, ...] | None = Field(
        None,
        description="on a VLAN-aware bridge: VLANs of the tunnels' adapters, as `20`, `100-199` or "
        "`1 untagged`; default: those of the LAN ports",
    )

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checked_interface_address(item) for item in value)

    @field_validator("mac")
    @classmethod
    def _mac(cls, value: str | None) -> str | None:
        return value if value is None else str(checked_unicast(value))

    @field_validator("vlans", mode="before")
    @classmethod
    def _vlan_numbers(cls, value: object) -> object:
        """In YAML, 20 is a number."""
        if not isinstance(value, list | tuple):
            return value
        return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]

    @field_validator("vlans")
    @classmethod
    def _vlans(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        parse_vlans(value or ())
        return value


class Configuration(Section):
    """The whole file."""

    _inline_files: dict[tuple[str | int, ...], Path] = PrivateAttr(default_factory=dict)

    state_directory: Path = Field(
        Path("/var/lib/bridged"), description="folder for what survives restarts: embedded CA, MAC addresses"
    )
    user: str | None = Field(
        None,
        min_length=1,
        description="who the daemon becomes if root starts it; default: `bridged` if there is such a user; "
        "root: nobody else",
    )
    log: Log = Log()
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    bridges: dict[InterfaceName, Bridge]
    tunnels: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")], Tunnel]

    def file_of(self, path: tuple[str | int, ...]) -> Path | None:
        """The file that has the text of the certificate or key at `path`; None without such a text."""
        return self._inline_files.get(path)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, tunnel in self.tunnels.items():
            if tunnel.bridge not in self.bridges:
                close = get_close_matches(tunnel.bridge, self.bridges, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise PydanticCustomError(
                    "no_bridge",
                    "no bridge {bridge} in `bridges`{hint}",
                    {"bridge": repr(tunnel.bridge), "hint": hint, "path": ("tunnels", name, "bridge")},
                )
        return self
