"""Control datagrams on their way to the control plane. Those of strangers never hold up the others.

Source: bridged/dataplane/contract/events.py. Every lane is bounded, and every source has a rate.
Written under the loop's gate, read by the control plane's thread; a deque needs no lock for that.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from enum import Enum
from typing import Final, NamedTuple

from bridged.addresses import Endpoint, network_of
from bridged.dataplane.contract import CONTROL_QUEUE_DATAGRAMS, STRANGER_QUEUE_DATAGRAMS, ControlReceived
from bridged.units import PeerHandle

SOURCES_REMEMBERED: Final = 4096
CONTROL_DATAGRAM_OCTETS: Final = 4096
"""Larger datagrams cannot be control packets (tls-mtu is at most 2048)."""
STRANGERS_SHARE: Final = 8
"""One in this many datagrams of a call is a stranger's, if one waits, however much peers send."""


class Rate(NamedTuple):
    """Datagrams at once, and datagrams a second in the long run."""

    burst: float
    rate: float


PEER: Final = Rate(1024.0, 1024.0)
"""For a peer, whatever endpoints it floats to."""
HANDSHAKE: Final = Rate(128.0, 64.0)
"""For an endpoint in its handshake."""
HANDSHAKES: Final = Rate(8192.0, 4096.0)
"""For all endpoints of one host in their handshakes: a thousand clients may return at once."""
STRANGER: Final = Rate(256.0, 128.0)
"""For a host that nobody knows."""
NEWCOMERS: Final = Rate(4096.0, 512.0)
"""For a host whose clients brought their cookies back."""
SAMPLES: Final = Rate(32.0, 8.0)
"""For useless packets of everybody together: they are logged, not answered."""
PROVEN: Final = Rate(16.0, 1.0)
FOLLOWERS: Final = Rate(2048.0, 1024.0)
"""For all that continue without their key, because they bring it once: a captured reset makes anybody one of
them."""
NOTICE: Final = Rate(1.0, 1.0)
NOTICES: Final = Rate(1024.0, 1024.0)
"""Notices of unknown sessions: to one endpoint, and to all together."""


class Sender(Enum):
    """Who a control datagram is from."""

    PEER = "a peer's endpoint"
    STRANGER = "anybody else; the datagram has not been looked at"
    PROVEN = "a stranger that brought its cookie back"
    REMEMBERED = "a stranger that brings its key only now, and may continue without it"
    UNPROVEN = "a stranger that may have brought its cookie back before"
    USELESS = "a stranger whose packet is useless"


class SourceLimit:
    """A token bucket for each source of control datagrams.

    Holds SOURCES_REMEMBERED sources; the one that was silent longest is forgotten first.
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def knows(self, source: str) -> bool:
        """Whether this source has a bucket."""
        return source in self._buckets

    def allows(self, source: str, now: float, *, burst: float, rate: float) -> bool:
        """Take one token of `source`; False if it has none left. `rate`: tokens a second."""
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= SOURCES_REMEMBERED:
                self._buckets.popitem(last=False)
            self._buckets[source] = [burst - 1.0, now]
            return True
        self._buckets.move_to_end(source)
        tokens = min(burst, bucket[0] + (now - bucket[1]) * rate)
        bucket[1] = now
        bucket[0] = tokens - 1.0 if tokens >= 1.0 else tokens
        return tokens >= 1.0


class ControlQueue:
    """Two lanes: CONTROL_QUEUE_DATAGRAMS of peers and handshakes, STRANGER_QUEUE_DATAGRAMS of all others."""

    def __init__(self) -> None:
        self._known: deque[ControlReceived] = deque()
        self._strangers: deque[ControlReceived] = deque()
        self._limit = SourceLimit()
        self._proven = SourceLimit()
        self._remembered = SourceLimit()
        self._noticed = SourceLimit()
        self._expected: Counter[Endpoint] = Counter()

    def __len__(self) -> int:
        return len(self._known) + len(self._strangers)

    def expect(self, endpoint: Endpoint) -> None:
        """A session begins its handshake with this endpoint."""
        self._expected[endpoint] += 1

    def stop_expecting(self, endpoint: Endpoint) -> None:
        """A session that was expected is over."""
        if endpoint in self._expected:
            self._expected[endpoint] -= 1
            if not self._expected[endpoint]:
                del self._expected[endpoint]

    def expects(self, endpoint: Endpoint) -> bool:
        """Whether a session is in its handshake with this endpoint."""
        return endpoint in self._expected

    def may_notify(self, source: Endpoint, now: float) -> bool:
        """Whether the rates allow to tell a stranger that its session is unknown here."""
        return self._noticed.allows(
            str(source), now, burst=NOTICE.burst, rate=NOTICE.rate
        ) and self._noticed.allows("", now, burst=NOTICES.burst, rate=NOTICES.rate)

    def put(
        self,
        datagram: bytes,
        source: Endpoint,
        now: float,
        sender: Sender,
        refusal: str = "cookie_mismatch",
        peer: PeerHandle | None = None,
    ) -> str | None:
        """Queue a datagram; returns the drop reason if it is refused.

        `refusal`: the reason for `Sender.UNPROVEN` and `USELESS` ones that find no room. `peer`: who is at
        `source`, for `Sender.PEER`.
        """
        if len(datagram) > CONTROL_DATAGRAM_OCTETS:
            return "bad_length"
        who, rate = self._bucket(source, sender, now, peer)
        if not self._limit.allows(who, now, burst=rate.burst, rate=rate.rate):
            return refusal if rate is SAMPLES else "source_rate"
        is_expected = sender is not Sender.PEER and source in self._expected
        goes_on = sender is Sender.UNPROVEN and rate is HANDSHAKE
        if (is_expected or goes_on) and not self._limit.allows(
            f"handshakes {_host(source)}", now, burst=HANDSHAKES.burst, rate=HANDSHAKES.rate
        ):
            return "source_rate"
        is_follower = goes_on and not is_expected and not self._proven.knows(str(source))
        if is_follower and not self._limit.allows(
            "followers", now, burst=FOLLOWERS.burst, rate=FOLLOWERS.rate
        ):
            return "source_rate"
        is_known = sender is Sender.PEER or is_expected
        lane, room = (
            (self._known, CONTROL_QUEUE_DATAGRAMS)
            if is_known
            else (self._strangers, STRANGER_QUEUE_DATAGRAMS)
        )
        if len(lane) >= room:
            return "control_queue_full"
        lane.append(ControlReceived(datagram, source))
        return None

    def take(self, limit: int) -> list[ControlReceived]:
        """Take up to `limit`: those of known endpoints first, except for the strangers' share."""
        share = min(-(-limit // STRANGERS_SHARE), len(self._strangers))
        known = min(len(self._known), limit - share)
        strangers = min(len(self._strangers), limit - known)
        taken = [self._known.popleft() for _ in range(known)]
        return taken + [self._strangers.popleft() for _ in range(strangers)]

    def _bucket(
        self, source: Endpoint, sender: Sender, now: float, peer: PeerHandle | None
    ) -> tuple[str, Rate]:
        if sender is Sender.USELESS:
            # Floods consist of these: they take no further step.
            return "", SAMPLES
        endpoint = str(source)
        if sender is Sender.PEER:
            return f"peer {peer}", PEER
        if source in self._expected:
            return endpoint, HANDSHAKE
        if sender is Sender.STRANGER:
            return _host(source), STRANGER
        if sender is Sender.PROVEN:
            self._proven.allows(endpoint, now, burst=PROVEN.burst, rate=PROVEN.rate)
            return _host(source), NEWCOMERS
        if sender is Sender.REMEMBERED:
            self._remembered.allows(endpoint, now, burst=PROVEN.burst, rate=PROVEN.rate)
            return _host(source), NEWCOMERS
        goes_on = self._proven.knows(endpoint) or self._remembered.knows(endpoint)
        if sender is Sender.UNPROVEN and goes_on:
            return endpoint, HANDSHAKE
        return "", SAMPLES


def _host(source: Endpoint) -> str:
    """An IPv4 address, or all of an IPv6 /64, which is one host's to choose from."""
    return network_of(source.host).hex() if source.is_ipv6 else source.host
