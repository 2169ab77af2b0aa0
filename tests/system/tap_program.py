"""A program of another author, who has nothing but bridged-tap: run by test_tap_standalone.py.

In one event loop it answers pings on a TUN adapter, and prints and returns the frames of a TAP adapter.
Usage: tap_program.py TUN TAP
"""

from __future__ import annotations

import asyncio
import signal
import struct
import sys

from bridged_tap import AdapterLockedError, TapAdapter, TapError, TunAdapter, open_tap, open_tun

ICMP = 1
ECHO_REQUEST = 8


async def answer_pings(tun: TunAdapter) -> None:
    async for packet in tun:
        if packet[0] >> 4 != 4 or packet[9] != ICMP or packet[20] != ECHO_REQUEST:
            continue
        answer = bytearray(packet)
        answer[12:16], answer[16:20] = packet[16:20], packet[12:16]
        answer[20] = 0
        # The type went from 8 to 0: the checksum grows by 8 << 8, with the carry.
        total = struct.unpack_from("!H", packet, 22)[0] + (ECHO_REQUEST << 8)
        struct.pack_into("!H", answer, 22, (total & 0xFFFF) + (total >> 16))
        tun.write(answer)


async def mirror(tap: TapAdapter) -> None:
    async for frame in tap:
        kind = frame[12:14].hex()
        print("frame", kind, len(frame), flush=True)
        if kind == "88b5":
            tap.write(frame[6:12] + frame[:6] + frame[12:])


async def run(tun_name: str, tap_name: str) -> None:
    with open_tun(tun_name) as tun, open_tap(tap_name, mac="02:00:5e:10:00:01", mtu=1400) as tap:
        tun.add_address("192.0.2.1/24")
        tun.up()
        tap.up()

        def stop() -> None:
            tun.close()
            tap.close()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        print("ready", tun.name, tap.name, tap.mac, tap.mtu, flush=True)
        await asyncio.gather(answer_pings(tun), mirror(tap))
    print("ended", flush=True)


def main() -> int:
    try:
        asyncio.run(run(sys.argv[1], sys.argv[2]))
    except AdapterLockedError as error:
        print("locked by", error.holder_pid, flush=True)
        return 3
    except TapError as error:
        print(error.code, error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
