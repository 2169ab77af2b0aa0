"""Talks to a running daemon over its Unix socket."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from bridged.admin.models import (
    AddStationAnswer,
    ConfirmAnswer,
    KickAnswer,
    ReloadAnswer,
    RemoveStationAnswer,
    RevokeAnswer,
    StatusAnswer,
)
from bridged.errors import BridgedError

TIMEOUT_SECONDS: Final = 10.0


class AdminError(BridgedError):
    """The daemon did not answer, or refused: `not_running`, `not_allowed`, `timeout`, `api`,
    or the code of the daemon's error."""


class AdminClient:
    """A connection to the daemon behind `socket_path`; a context manager.

    Raises:
        AdminError: from every call.
    """

    def __init__(self, socket_path: Path, timeout: float = TIMEOUT_SECONDS) -> None:
        self._path = socket_path
        self._http = httpx.Client(
            # No TLS on a Unix socket: no list of authorities, which may be missing here, is loaded.
            transport=httpx.HTTPTransport(uds=str(socket_path), verify=False, trust_env=False),
            base_url="http://bridged",
            timeout=timeout,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def status(self) -> StatusAnswer:
        return StatusAnswer.model_validate(self._ask("GET", "/v1/status"))

    def status_json(self) -> Any:
        """The status as the daemon wrote it, with fields that this version may not know."""
        return self._ask("GET", "/v1/status")

    def confirm(self) -> ConfirmAnswer:
        return ConfirmAnswer.model_validate(self._ask("POST", "/v1/confirm"))

    def reload(self) -> ReloadAnswer:
        return ReloadAnswer.model_validate(self._ask("POST", "/v1/reload"))

    def kick(self, name: str, tunnel: str | None = None) -> KickAnswer:
        query = {} if tunnel is None else {"tunnel": tunnel}
        return KickAnswer.model_validate(self._ask("POST", "/v1/kick", name=name, **query))

    def revoke(self, name: str, state: Path, keep: str | None = None) -> RevokeAnswer:
        """See `AdminState.revoke`. The error has the code of the daemon's refusal (`pki_unknown` …)."""
        query = {} if keep is None else {"keep": keep}
        answer = self._ask("POST", "/v1/revoke", name=name, state_directory=str(state), **query)
        return RevokeAnswer.model_validate(answer)

    def fdb_json(self, tunnel: str) -> Any:
        """What `FdbAnswer` reads."""
        return self._ask("GET", "/v1/fdb", tunnel=tunnel)

    def add_station(self, tunnel: str, address: str, peer: str | None) -> AddStationAnswer:
        """See `AdminState.add_station`."""
        query = {} if peer is None else {"peer": peer}
        answer = self._ask("POST", "/v1/stations/add", tunnel=tunnel, address=address, **query)
        return AddStationAnswer.model_validate(answer)

    def remove_station(self, tunnel: str, address: str) -> RemoveStationAnswer:
        answer = self._ask("POST", "/v1/stations/remove", tunnel=tunnel, address=address)
        return RemoveStationAnswer.model_validate(answer)

    def _ask(self, method: str, path: str, **query: str) -> Any:
        try:
            response = self._http.request(method, path, params=query)
            answer = response.json()
        except httpx.ConnectError as error:
            raise self._not_connected(error) from None
        except httpx.TimeoutException:
            raise AdminError("timeout", f"the daemon did not answer in time (socket {self._path})") from None
        except (httpx.HTTPError, ValueError) as error:
            raise AdminError(
                "api", f"the daemon's answer is invalid (socket {self._path}): {error}"
            ) from None
        if response.status_code >= 400 and path != "/v1/health":
            detail = answer.get("detail") if isinstance(answer, dict) else None
            if isinstance(detail, dict):
                raise AdminError(str(detail.get("code")), str(detail.get("text")))
            raise AdminError("api", str(detail or f"the daemon refused {path}: {response.status_code}"))
        return answer

    def _not_connected(self, error: httpx.ConnectError) -> AdminError:
        if "Permission denied" in str(error):
            text = f"may not open the socket {self._path}; run this as the daemon's user (root)"
            return AdminError("not_allowed", text)
        text = (
            f"cannot reach the daemon: is bridged running? Nothing answers on the socket {self._path}. "
            "If its configuration names another one, give `--config FILE`"
        )
        return AdminError("not_running", text)
