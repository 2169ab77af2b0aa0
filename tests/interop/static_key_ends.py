"""Our end and one of real OpenVPN with a static key: no TLS, either end may call."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tests.interop.interop_ends import THEIR_TAP, Ends, Role, running
from tests.lab import OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client, server
from tests.lab.pki import Identity


class StaticOpenVpn(OpenVpn):
    """With `secret`, in the direction that the other end does not have."""

    cipher = ""
    compression = ""
    fragment = 0
    direction: int | None = None
    is_ipv6 = False

    def configuration(self) -> str:
        profile = self.profile
        where = f"remote {self.remote} {profile.port}\nnobind" if self.remote else f"port {profile.port}"
        lines = [f"dev {self.tap}", "dev-type tap", "verb 4", f"proto {self._protocol()}", where]
        # The end of a connection is a farewell of its own; OpenVPN's pause before the next is 5 s.
        lines += ["explicit-exit-notify 1"] if profile.transport == "udp" else ["connect-retry 1 1"]
        lines += [f"keepalive {profile.ping_seconds} {profile.restart_seconds}"]
        lines += [f"cipher {self.cipher}", f"auth {profile.digest}"]
        lines += [self.compression] if self.compression else []
        lines += [f"fragment {self.fragment}", f"mssfix {self.fragment}"] if self.fragment else []
        lines += [f"key-direction {self.direction}"] if self.direction is not None else []
        return "\n".join([*lines, "<secret>", profile.wrap_key.strip(), "</secret>", ""])

    def _protocol(self) -> str:
        transport = self.profile.transport
        if transport == "udp":
            return "udp6" if self.is_ipv6 else "udp"
        return f"tcp{'6' if self.is_ipv6 else ''}-{'client' if self.remote else 'server'}"


@contextmanager
def linked(
    sites: TwoSites,
    ours_as: Role,
    release: str,
    cipher: str,
    digest: str,
    has_directions: bool,
    compression: str = "",
    *,
    fragment: int = 0,
    transport: Literal["udp", "tcp"] = "udp",
    build: str = "auto",
    is_ipv6: bool = False,
    relay: str = "",
) -> Iterator[Ends]:
    """Both ends, once frames cross. `compression`: `comp-lzo` or nothing. `relay`: its address."""
    profile = Profile(wrap="none", digest=digest, transport=transport)
    nobody = Identity("", "", "", 0)
    wrap = {"mode": "static-key", "key": profile.wrap_key, "digest": digest}
    tunnel = {
        "wrap": wrap | ({"direction": 0} if has_directions else {}),
        "ciphers": [cipher],
        "tls": {},
        "point_to_point": True,
        "fragment": fragment,
        "dataplane": build,
    } | ({"compression_framing": compression} if compression else {})
    far = relay or (sites.a.wan_ipv6 if is_ipv6 else sites.a.wan_ipv4)
    where = f"[{far}]:{profile.port}" + ("/tcp" if transport == "tcp" else "") if is_ipv6 else far
    here, there = (sites.a, sites.b) if ours_as == "server" else (sites.b, sites.a)
    theirs = StaticOpenVpn(
        there,
        "client",
        profile,
        nobody,
        remote=far if ours_as == "server" else "",
        tap=THEIR_TAP,
        release=release,
    )
    theirs.compression, theirs.fragment, theirs.is_ipv6 = compression, fragment, is_ipv6
    theirs.cipher, theirs.direction = cipher, 1 if has_directions else None
    ours = (
        server(sites.a, profile, nobody, tunnel=tunnel, listen=f"[::]:{profile.port}" if is_ipv6 else "")
        if ours_as == "server"
        else client(sites.b, profile, nobody, where, tunnel=tunnel)
    )
    try:
        with running(ours):
            theirs.start()
            try:
                wait_for(lambda: here.host.reaches(there.host.ipv4), "frames to cross", 15)
                yield Ends(ours, theirs, here, there, ours.drops())
            except BaseException:
                print(theirs.started.tail(40))
                raise
            finally:
                theirs.stop(signal.SIGKILL)
    finally:
        there.namespace.ip("link", "del", THEIR_TAP)
