"""Every code that an error of this package can carry, and what it means.

`BridgedError.code` is one of these, a drop reason, a handshake outcome (`counters`), or the name of an errno
in lower case (`NetlinkError`). Those of adapters come from bridged_tap. docs/reference/errors.md, `bridged
explain` and the API's description are made of this table; `make lint` holds it and the code together. Pure:
no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import bridged_tap

ErrorGroup = Literal["configuration", "ca", "adapter", "data plane", "daemon", "kernel", "bug"]


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One code. `group` is the part of the program that raises it."""

    name: str
    group: ErrorGroup
    meaning: str


ERROR_CODES: Final = (
    ErrorCode(
        "configuration", "configuration", "The configuration has a mistake; the text names line and key."
    ),
    ErrorCode("profile", "configuration", "The OpenVPN profile cannot be used; the text names the line."),
    ErrorCode("static_key", "configuration", "The file is not a static key."),
    ErrorCode("key_direction", "configuration", "The key direction is not 0 or 1."),
    ErrorCode("cipher", "configuration", "The cipher is unknown or not offered."),
    ErrorCode("digest", "configuration", "The digest is unknown or not offered."),
    ErrorCode("replay_window", "configuration", "The replay window is too large."),
    ErrorCode("push", "configuration", "The option cannot be pushed to clients."),
    ErrorCode("tunnel_loop", "configuration", "Two tunnels of one bridge reach each other."),
    ErrorCode("address_taken", "configuration", "Another program uses the UDP address."),
    ErrorCode("bridge_taken", "configuration", "Another process keeps the bridge."),
    ErrorCode("not_a_bridge", "configuration", "The host has a link of this name that is not a bridge."),
    ErrorCode("port_taken", "configuration", "The port belongs to another bridge."),
    ErrorCode("port_unfit", "configuration", "The interface cannot be a bridge port."),
    ErrorCode("carries_tunnel", "configuration", "The interface carries the tunnel itself."),
    ErrorCode("pki_exists", "ca", "The state folder has a CA already."),
    ErrorCode("pki_missing", "ca", "The state folder has no CA."),
    ErrorCode("pki_damaged", "ca", "A file of the CA is missing or cannot be read."),
    ErrorCode("pki_name", "ca", "The text cannot be the name of a peer."),
    ErrorCode("pki_duplicate", "ca", "A certificate of this name exists already."),
    ErrorCode("pki_unknown", "ca", "The CA has issued no valid certificate of this name."),
    ErrorCode("pki_expired", "ca", "The CA has expired."),
    ErrorCode("pki_clock", "ca", "The host's clock is behind."),
    ErrorCode("pki_locked", "ca", "Another process works on this CA."),
    *(ErrorCode(name, "adapter", meaning) for name, meaning in bridged_tap.ERROR_CODES.items()),
    ErrorCode("scratch", "adapter", "No network namespace can be made for a trial."),
    ErrorCode("bind_failed", "data plane", "The UDP socket cannot be opened or bound."),
    ErrorCode("bad_setting", "data plane", "A setting of the data plane is out of range."),
    ErrorCode("system", "data plane", "The kernel refused threads, descriptors or socket options."),
    ErrorCode("native_unavailable", "data plane", "The native data plane is not built or cannot be loaded."),
    ErrorCode("unknown_peer", "data plane", "No peer has this handle."),
    ErrorCode("unknown_key", "data plane", "The peer has no such key."),
    ErrorCode("bad_station", "data plane", "The address cannot be that of a station."),
    ErrorCode("fdb_full", "data plane", "The forwarding database has no room for the station."),
    ErrorCode("duplicate_peer", "data plane", "The handle or the wire peer id is in use."),
    ErrorCode("not_running", "daemon", "No daemon answers on the admin socket."),
    ErrorCode("not_allowed", "daemon", "This user may not use the admin socket."),
    ErrorCode("timeout", "daemon", "The daemon did not answer in time."),
    ErrorCode("api", "daemon", "The daemon refused the request; the text says why."),
    ErrorCode("not_ready", "daemon", "The daemon is starting or stopping."),
    ErrorCode("other_state", "daemon", "The daemon uses another state folder."),
    ErrorCode("in_use", "daemon", "Another program listens on this socket or port."),
    ErrorCode("not_a_socket", "daemon", "The path of the admin socket holds another file."),
    ErrorCode("io_error", "daemon", "The socket cannot be opened; the text says why."),
    ErrorCode("bad_token", "daemon", "The bearer token of the metrics cannot be read or used."),
    ErrorCode(
        "bad_web_config", "daemon", "The web configuration file of the metrics cannot be read or used."
    ),
    ErrorCode("no_authentication", "daemon", "The metrics would be open to everybody on the network."),
    ErrorCode("login_unavailable", "daemon", "A client's password or one-time secret cannot be read."),
    ErrorCode("shutdown", "daemon", "Errors that were met while stopping."),
    ErrorCode("netlink", "kernel", "The kernel did not answer a netlink request."),
    ErrorCode("local_protocol", "bug", "One part of this program broke a rule of another."),
    ErrorCode("window_full", "bug", "A control packet was sent although the window had no room."),
)
