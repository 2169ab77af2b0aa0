"""The TCP connections of one data plane, by endpoint and by descriptor.

Source: bridged/dataplane/contract.py, `adopt_stream`. Called with the loop's gate held.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from bridged.addresses import Endpoint
from bridged.dataplane.contract import STREAM_LINGER_SECONDS, STREAMS_LINGERING, StreamClosed
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.transport.seam import Path
from bridged.dataplane.portable.transport.stream import Stream
from bridged.endings import take_every_step


class Streams:
    """Adopts connections and lets them go. `tell` hears of those that end by themselves.

    The loop sets the three hooks: a stream came, something begins or ceases to wait for it, it goes.
    """

    def __init__(self, segments_per_send: BatchSizes, tell: Callable[[StreamClosed], None]) -> None:
        self._segments_per_send = segments_per_send
        self._tell = tell
        self._by_endpoint: dict[Endpoint, Stream] = {}
        self.by_descriptor: dict[int, Stream] = {}
        self.fresh: list[Stream] = []
        """Came with bytes that were read already; the loop looks at them once."""
        self._closing: dict[Stream, None] = {}
        self.after_open: Callable[[Stream], None] = lambda stream: None
        self.on_waiting: Callable[[Stream], None] = lambda stream: None
        self.before_close: Callable[[Stream], None] = lambda stream: None

    def adopt(self, descriptor: int, endpoint: Endpoint, received: bytes, packet_octets: int) -> None:
        """See the contract.

        Raises:
            DataplaneError: `system`.
        """
        stream = Stream(descriptor, endpoint, received, self._change, self._segments_per_send, packet_octets)
        if (before := self._by_endpoint.get(endpoint)) is not None:
            self._drop(before)
        self._by_endpoint[endpoint] = stream
        self.by_descriptor[stream.fileno()] = stream
        self.fresh.append(stream)
        self.after_open(stream)

    def close_stream(self, endpoint: Endpoint, now: float) -> None:
        """See the contract."""
        stream = self._by_endpoint.pop(endpoint, None)
        if stream is None:
            return
        stream.is_closing = True
        stream.closes_at = now + STREAM_LINGER_SECONDS
        self._closing[stream] = None
        if not stream.has_waiting:
            stream.finish()
        while len(self._closing) > STREAMS_LINGERING:
            self._drop(next(iter(self._closing)))

    def close(self) -> None:
        """End all at once."""
        take_every_step([partial(self._drop, stream) for stream in self._all()])

    def path(self, endpoint: Endpoint) -> Path:
        """The path through the stream of an endpoint, where a peer is from now on.

        Raises:
            OSError: there is none.
        """
        stream = self._by_endpoint.get(endpoint)
        if stream is None:
            raise OSError(errno.ENOTCONN, "there is no such TCP connection")
        stream.welcome()
        return Path(stream.address, stream)

    def send_to(self, packet: bytes, endpoint: Endpoint) -> bool:
        """Send a control packet; False: there is no such stream."""
        stream = self._by_endpoint.get(endpoint)
        if stream is None:
            return False
        stream.send_control(packet)
        return True

    def note_read(self, stream: Stream) -> None:
        """A stream was read: let it go if it is over."""
        if stream.end is None:
            return
        was_closing = stream.is_closing
        self._drop(stream)
        if not was_closing:
            self._tell(StreamClosed(stream.endpoint, stream.end))

    def handle_timeout(self, now: float) -> None:
        """End those that took too long to close."""
        for stream in [stream for stream in self._closing if now >= stream.closes_at]:
            self._drop(stream)

    def _change(self, stream: Stream) -> None:
        self.on_waiting(stream)
        if stream.is_closing and not stream.has_waiting:
            stream.finish()

    def _drop(self, stream: Stream) -> None:
        if self._by_endpoint.get(stream.endpoint) is stream:
            del self._by_endpoint[stream.endpoint]
        self._closing.pop(stream, None)
        if self.by_descriptor.pop(stream.fileno(), None) is not None:
            self.before_close(stream)
        stream.end = stream.end or "closed"
        stream.close()

    def _all(self) -> list[Stream]:
        return list(self.by_descriptor.values())
