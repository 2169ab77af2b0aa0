"""A data plane with a real TAP adapter in a namespace."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from bridged.addresses import Endpoint
from bridged.dataplane import create_dataplane
from bridged.dataplane.contract import (
    DataPlane,
    DataplaneSettings,
    PeerSettings,
    TapPort,
)
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import slice_keys
from bridged.protocol.role import Role
from bridged.units import KeyId, Octets, PeerHandle, WirePeerId
from bridged_tap import Offload, TapAdapter, open_tap
from tests.contract.dataplane_rig import HandPeer
from tests.lab.frames import open_capture
from tests.lab.namespace import Namespace
from tests.lab.topology import Host

SUPER = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.USO4 | Offload.USO6


PEER = PeerHandle(1)


def port_of(tap: TapAdapter) -> TapPort:
    names = frozenset(str(flag.name).lower() for flag in Offload if flag & tap.offloads)
    return TapPort(tap.fds, tap.name, tap.mac, Octets(tap.mtu), tap.virtio_header_size, names)


@dataclass
class End:
    """A data plane with a real TAP in a namespace. `vnet` and `offloads` of the TAP."""

    build: str
    space: Namespace
    bind: Endpoint
    vnet: bool = True
    offloads: Offload = Offload.NONE
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self, **settings: object) -> DataPlane:
        with self.space.entered():
            self.tap = self.open_tap("tap0")
            base = DataplaneSettings("kernel", port_of(self.tap), self.bind)
            self.plane = create_dataplane(self.build, replace(base, **settings))  # type: ignore[arg-type]
            self.plane.start()
        self.stack.callback(self.plane.stop)
        return self.plane

    def open_tap(self, name: str) -> TapAdapter:
        """A TAP here, set up; closed with the end."""
        with self.space.entered():
            tap = open_tap(name, virtio_header=self.vnet, offloads=self.offloads, lock=False)
            self.stack.callback(tap.close)
        self.space.sysctl(f"net.ipv6.conf.{name}.disable_ipv6", 1)
        self.space.ip("link", "set", name, "up")
        return tap

    def join(self, remote: Endpoint, role: Role) -> None:
        self.plane.add_peer(PeerSettings(PEER, "far", remote, WirePeerId(5), WirePeerId(5)))
        self.plane.install_key(PEER, slice_keys(bytes(range(256)), role, Cipher.AES_128_GCM, KeyId(0)))
        self.plane.use_key(PEER, KeyId(0))

    def join_hand(self, number: int = 1) -> HandPeer:
        """A hand-made peer in the same namespace."""
        with self.space.entered():
            hand = HandPeer(number, Cipher.AES_256_GCM)
        self.stack.callback(hand.close)
        assert self.plane.local_endpoint is not None
        hand.target = (self.bind.host, self.plane.local_endpoint.port)
        self.plane.add_peer(
            PeerSettings(hand.handle, f"hand-{number}", hand.endpoint, hand.wire_id, hand.wire_id)
        )
        self.plane.install_key(hand.handle, hand.key(Role.SERVER))
        self.plane.use_key(hand.handle, KeyId(0))
        return hand

    def capture(self, interface: str = "tap0") -> socket.socket:
        return self.stack.enter_context(open_capture(Host(self.space, "", "", ""), interface))

    def inject(self, *frames: bytes, interface: str = "tap0") -> None:
        """Have the kernel send frames out of an interface."""
        with (
            self.space.entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock,
        ):
            sock.bind((interface, 0))
            for item in frames:
                sock.send(item)
