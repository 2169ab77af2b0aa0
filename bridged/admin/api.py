"""The routes of the admin API."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog

from bridged.addresses import MacAddress
from bridged.admin.documents import health_document, status_document
from bridged.admin.http import HttpAnswer, Request
from bridged.admin.state import AdminState
from bridged.dataplane.contract import Histogram
from bridged.errors import BridgedError
from bridged.runtime.snapshot import ApiCounters

log = structlog.get_logger()

STATIONS_MAX: Final = 100_000
TUNNEL_NAME_MAX: Final = 63
DURATION_BOUNDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
OPENAPI_PATH: Final = "/v1/openapi.json"
NAME_CHARACTERS_MAX: Final = 64
SERIAL_CHARACTERS_MAX: Final = 64
PATH_CHARACTERS_MAX: Final = 4096
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

Document = Mapping[str, Any]
Handler = Callable[[Request], Awaitable[tuple[HTTPStatus, Document]]]


class Refused(Exception):
    """Refuses a request with a reason: `detail`, and `code` if there is one, go to the client."""

    def __init__(self, status: HTTPStatus, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class RequestCounters:
    """Answered requests by (route, method, status), and the seconds that each route took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._counts: dict[str, list[int]] = {}
        self._totals: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. Unknown routes share one name; a stranger cannot grow the table."""
        self._requests[route, method if method in _METHODS else "other", str(status)] += 1
        counts = self._counts.setdefault(route, [0] * (len(DURATION_BOUNDS) + 1))
        counts[sum(seconds > bound for bound in DURATION_BOUNDS)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def snapshot(self) -> ApiCounters:
        durations = {
            route: Histogram(DURATION_BOUNDS, tuple(counts), self._seconds[route])
            for route, counts in list(self._counts.items())
        }
        return ApiCounters(dict(self._requests), durations)


class Api:
    """Answers requests from `state`. Every handler runs in the event loop of the server."""

    def __init__(self, state: AdminState, counters: RequestCounters) -> None:
        self._state = state
        self._counters = counters
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/status": ("GET", self._status),
            "/v1/confirm": ("POST", self._confirm),
            "/v1/reload": ("POST", self._reload),
            "/v1/kick": ("POST", self._kick),
            "/v1/revoke": ("POST", self._revoke),
            "/v1/fdb": ("GET", self._fdb),
            "/v1/stations/add": ("POST", self._add_station),
            "/v1/stations/remove": ("POST", self._remove_station),
            "/v1/health": ("GET", self._health),
            OPENAPI_PATH: ("GET", self._description),
        }

    async def respond(self, request: Request) -> HttpAnswer:
        """Answer and count one request."""
        begin = time.perf_counter()
        headers: tuple[tuple[str, str], ...] = ()
        try:
            method, handler = self._routes.get(request.path, ("", self._unknown))
            if method and request.method not in (method, "HEAD" if method == "GET" else method):
                headers = (("Allow", f"{method}, HEAD" if method == "GET" else method),)
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} takes {method}")
            status, document = await handler(request)
            body = _json(document)
        except Refused as refusal:
            detail = {"code": refusal.code, "text": str(refusal)} if refusal.code else str(refusal)
            status, body = refusal.status, _json({"detail": detail})
        except Exception:
            # A fault in one answer goes to its client and to the log; the server continues.
            log.exception("api_request_failed", path=request.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            body = _json({"detail": "internal error; see the daemon's log"})
        route = request.path if request.path in self._routes else "unknown"
        self._counters.observe(route, request.method, status.value, time.perf_counter() - begin)
        return HttpAnswer(status, body, headers)

    def refuse(self, status: HTTPStatus, detail: str) -> HttpAnswer:
        """Answer and count something that is not a request."""
        self._counters.observe("unknown", "other", status.value, 0.0)
        return HttpAnswer(status, _json({"detail": detail}))

    async def _unknown(self, request: Request) -> tuple[HTTPStatus, Document]:
        raise Refused(HTTPStatus.NOT_FOUND, f"no such path; the paths are: {', '.join(self._routes)}")

    async def _status(self, request: Request) -> tuple[HTTPStatus, Document]:
        """The state of bridges, tunnels and peers at one moment."""
        return HTTPStatus.OK, status_document(self._state.snapshot())

    async def _confirm(self, request: Request) -> tuple[HTTPStatus, Document]:
        """Keep the network changes of a start with `--confirm`."""
        return HTTPStatus.OK, {"confirmed": self._state.confirm()}

    async def _reload(self, request: Request) -> tuple[HTTPStatus, Document]:
        """Reload the configuration. The answer comes when it is applied, or restored."""
        done = await self._state.reload()
        return HTTPStatus.OK, {"outcome": done.outcome, "detail": done.detail}

    async def _kick(self, request: Request) -> tuple[HTTPStatus, Document]:
        """End the sessions of a peer at once. It may connect again."""
        name, tunnel = _name(request), request.query.get("tunnel")
        try:
            return HTTPStatus.OK, {"ended": self._state.kick(name, tunnel)}
        except KeyError:
            raise Refused(HTTPStatus.NOT_FOUND, f"no tunnel {(tunnel or '')[:TUNNEL_NAME_MAX]!r}") from None

    async def _revoke(self, request: Request) -> tuple[HTTPStatus, Document]:
        """Revoke a peer's certificates, except the one with serial `keep`, and end their sessions at once."""
        name, keep = _name(request), request.query.get("keep")
        state_directory = request.query.get("state_directory")
        if len(keep or "") > SERIAL_CHARACTERS_MAX or len(state_directory or "") > PATH_CHARACTERS_MAX:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "`keep` or `state_directory` is too long")
        try:
            done = await self._state.revoke(name, keep, state_directory)
        except BridgedError as error:
            raise Refused(HTTPStatus.CONFLICT, error.message, error.code) from None
        return HTTPStatus.OK, {"revoked": done.revoked, "ended": done.ended}

    async def _fdb(self, request: Request) -> tuple[HTTPStatus, Document]:
        """The stations that one tunnel's switch knows, learned and static."""
        tunnel = _tunnel(request)
        with _known(tunnel):
            stations, static = self._state.fdb(tunnel), self._state.static_stations(tunnel)
        rows = [
            {"address": str(row.address), "peer": row.peer, "age": row.age, "static": row.is_static}
            for row in stations[:STATIONS_MAX]
        ]
        waiting = [{"address": str(row.address), "peer": row.peer} for row in static if not row.is_installed]
        total = len(stations)
        return HTTPStatus.OK, {"tunnel": tunnel, "total": total, "stations": rows, "waiting": waiting}

    async def _add_station(self, request: Request) -> tuple[HTTPStatus, Document]:
        """Put a station behind a peer, or (without `peer`) into the LAN. It neither ages nor moves then."""
        tunnel, address, peer = _tunnel(request), _address(request), request.query.get("peer")
        if peer is not None and not 0 < len(peer) <= NAME_CHARACTERS_MAX:
            text = f"`peer` has 1 to {NAME_CHARACTERS_MAX} characters"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, text)
        try:
            with _known(tunnel):
                added = self._state.add_station(tunnel, address, peer)
        except BridgedError as error:
            raise Refused(HTTPStatus.CONFLICT, error.message, error.code) from None
        answer = {"address": str(added.address), "peer": added.peer, "installed": added.is_installed}
        return HTTPStatus.OK, answer

    async def _remove_station(self, request: Request) -> tuple[HTTPStatus, Document]:
        """Forget a station, static or learned; the switch learns it again from its next frame."""
        tunnel, address = _tunnel(request), _address(request)
        with _known(tunnel):
            return HTTPStatus.OK, {"removed": self._state.remove_station(tunnel, address)}

    async def _health(self, request: Request) -> tuple[HTTPStatus, Document]:
        """200 if every tunnel is up, every bridge as configured and every duty done; else 503."""
        document = health_document(self._state.snapshot())
        return HTTPStatus.OK if document["ok"] else HTTPStatus.SERVICE_UNAVAILABLE, document

    async def _description(self, request: Request) -> tuple[HTTPStatus, Document]:
        """The OpenAPI description of this API. Its classes are loaded at the first request."""
        from bridged.admin.description import describe

        routes = {path: (method, handler.__doc__ or "") for path, (method, handler) in self._routes.items()}
        return HTTPStatus.OK, describe(routes)


def _name(request: Request) -> str:
    name = request.query.get("name", "")
    if not name or len(name) > NAME_CHARACTERS_MAX:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"needs ?name=NAME of 1 to {NAME_CHARACTERS_MAX} characters"
        )
    return name


def _tunnel(request: Request) -> str:
    tunnel = request.query.get("tunnel", "")
    if not tunnel or len(tunnel) > TUNNEL_NAME_MAX:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "needs ?tunnel=NAME")
    return tunnel


def _address(request: Request) -> MacAddress:
    try:
        return MacAddress.parse(request.query.get("address", ""))
    except ValueError:
        text = "needs ?address=MAC, such as 02:00:5e:10:00:01"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, text) from None


@contextmanager
def _known(tunnel: str) -> Iterator[None]:
    """Refuses a tunnel that does not exist."""
    try:
        yield
    except KeyError:
        raise Refused(HTTPStatus.NOT_FOUND, f"no tunnel {tunnel!r}") from None


def _json(document: Document) -> bytes:
    # ASCII only: names and reasons of strangers cannot steer a terminal.
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
