#!/usr/bin/env python3
"""A host made of one TAP adapter and this script: it answers ARP and ping for every address it is asked for.

Run as root, then talk to it:

    python3 hello.py hello0 &
    ip addr add 192.0.2.1/24 dev hello0
    ping 192.0.2.77

The adapter disappears with the script.
"""

from __future__ import annotations

import signal
import struct
import sys

from bridged_tap import MacAddress, TapError, draw_mac, kernel_addresses, open_tap

ARP, IPV4, ICMP = b"\x08\x06", b"\x08\x00", 1


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "hello%d"
    station = draw_mac(kernel_addresses())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with open_tap(name) as tap:
            tap.up()
            print(f"{tap.name}: adapter {tap.mac}, answering as {station}", flush=True)
            for frame in tap:
                reply = answer(frame, station)
                if reply is not None:
                    tap.write(reply)
    except TapError as error:
        print(f"{error} [{error.code}]", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def answer(frame: bytes, station: MacAddress) -> bytes | None:
    """The reply to an ARP request or an ICMP echo request; None for everything else."""
    sender, kind, packet = frame[6:12], frame[12:14], frame[14:]
    if kind == ARP and packet[6:8] == b"\x00\x01":
        asker, asked = packet[8:18], packet[24:28]
        reply = packet[:6] + b"\x00\x02" + station.octets + asked + asker
        return sender + station.octets + ARP + reply
    if kind == IPV4 and packet[:1] == b"\x45" and packet[9] == ICMP and packet[20:22] == b"\x08\x00":
        echo = b"\x00\x00\x00\x00" + packet[24:]
        echo = echo[:2] + struct.pack("!H", internet_checksum(echo)) + echo[4:]
        return sender + station.octets + IPV4 + packet[:12] + packet[16:20] + packet[12:16] + echo
    return None


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    sys.exit(main())
