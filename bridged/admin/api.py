"""The routes of the admin API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import structlog
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from bridged import __version__
from bridged.admin.models import (
    ConfirmAnswer,
    FdbAnswer,
    HealthAnswer,
    ReloadAnswer,
    StationAnswer,
    StatusAnswer,
    health_answer,
    status_answer,
)
from bridged.admin.state import AdminState
from bridged.dataplane.contract import Histogram
from bridged.runtime.snapshot import ApiCounters

log = structlog.get_logger()

STATIONS_MAX: Final = 100_000
DURATION_BOUNDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestCounters:
    """Answered requests by (route template, method, status), and how long each route took (seconds)."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._counts: dict[str, list[int]] = {}
        self._totals: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. Unknown routes share one name, so a stranger cannot grow the table."""
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


def build_api(state: AdminState, counters: RequestCounters) -> FastAPI:
    """The application over `state`; every handler runs in the event loop that serves it."""
    api = FastAPI(
        title="bridged", version=__version__, openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None
    )

    @api.middleware("http")
    async def _count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        begin = time.perf_counter()
        try:
            response = await call_next(request)
        except Exception:
            # A fault in one answer is told to its client and to the log; the server goes on.
            log.exception("api_request_failed", path=request.url.path)
            response = JSONResponse({"detail": "internal error, see the daemon's log"}, 500)
        route = getattr(request.scope.get("route"), "path", "unknown")
        counters.observe(route, request.method, response.status_code, time.perf_counter() - begin)
        return response

    @api.get("/v1/status")
    async def status() -> StatusAnswer:
        """Everything the daemon knows about bridges, tunnels and peers, at one moment."""
        return status_answer(state.snapshot())

    @api.post("/v1/confirm")
    async def confirm() -> ConfirmAnswer:
        """Keep what a start with `--confirm` has changed."""
        return ConfirmAnswer(confirmed=state.confirm())

    @api.post("/v1/reload")
    async def reload() -> ReloadAnswer:
        """Read the configuration anew; answered when everything is as it says, or as it was."""
        done = await state.reload()
        return ReloadAnswer(outcome=done.outcome, detail=done.detail)

    @api.get("/v1/fdb")
    async def fdb(tunnel: Annotated[str, Query(max_length=63)]) -> FdbAnswer:
        """The stations that one tunnel's switch has learned."""
        try:
            stations = state.fdb(tunnel)
        except KeyError:
            raise HTTPException(404, f"no tunnel {tunnel!r}") from None
        rows = tuple(
            StationAnswer(address=str(row.address), peer=row.peer, age=row.age)
            for row in stations[:STATIONS_MAX]
        )
        return FdbAnswer(tunnel=tunnel, total=len(stations), stations=rows)

    @api.get("/v1/health")
    async def health(response: Response) -> HealthAnswer:
        """200 where every tunnel is up, every bridge as configured and every duty done; else 503."""
        answer = health_answer(state.snapshot())
        response.status_code = 200 if answer.ok else 503
        return answer

    return api
