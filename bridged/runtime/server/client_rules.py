"""Whether one client may be here at all, and what is pushed to it: `clients`, bans, the address pool.

All methods run in the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from bridged.configuration.access import Client
from bridged.runtime.server.address_book import AddressBook
from bridged.runtime.server.bans import Bans, folded
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.sessions import Sessions
from bridged.units import PeerHandle

NO_ADDRESS: Final = "the server has no free address for another client"


class ClientRules:
    """The rules of one server by its present plan."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._addresses = AddressBook(sessions.plan.admission.addresses)
        self._bans = Bans(sessions.plan.admission.bans)
        self._spellings: tuple[Mapping[str, Client], dict[str, list[Client]]] = ({}, {})

    def refresh(self) -> None:
        """Before `objection` is asked: read the bans if they have changed."""
        self._bans.refresh()

    def objection(self, name: str) -> str | None:
        """Why the client of this name may not be connected now; None: it may. For the client's eyes."""
        plan, now = self._sessions.plan, unix_now()
        banned = self._bans.until(name, now)
        if banned is not None:
            return f"banned until {_moment(banned)}" if banned else "banned by the operator"
        client = plan.admission.clients.get(name)
        if client is None and plan.admission.only_known_clients:
            return "this client is not known to the server"
        for known in self._spelt_as(name) if client is None else [client]:
            if not known.enabled:
                return "this client is disabled"
            if known.ends_at is not None and now > known.ends_at:
                return f"this client was allowed until {known.until}"
        return None

    def _spelt_as(self, name: str) -> list[Client]:
        """Entries of this name in other spellings: they may refuse, but give nothing (decision 126)."""
        clients = self._sessions.plan.admission.clients
        if self._spellings[0] is not clients:
            found: dict[str, list[Client]] = {}
            for other, client in clients.items():
                found.setdefault(folded(other), []).append(client)
            self._spellings = clients, found
        return self._spellings[1].get(folded(name), [])

    def is_full(self, name: str, others: int) -> bool:
        """Whether the client has as many sessions as it may have, with `others` besides a new one."""
        client = self._sessions.plan.admission.clients.get(name)
        return client is not None and client.sessions_max is not None and others >= client.sessions_max

    def options(self, handle: PeerHandle, name: str) -> tuple[str, ...] | None:
        """What is pushed to this session; None: no address is free. `release` gives the address back."""
        plan = self._sessions.plan
        options = list(plan.session.push)
        client = plan.admission.clients.get(name)
        if client is not None:
            options += client.push
        pool = plan.admission.address_pool
        if pool is not None:
            address = self._addresses.take(
                handle, name, pool, plan.admission.clients, shares_name=plan.duplicate_names
            )
            if address is None:
                return None
            if pool.gateway is not None and not any(one.startswith("route-gateway") for one in options):
                options.append(f"route-gateway {pool.gateway}")
            options.append(f"ifconfig {address} {pool.network.netmask}")
        return tuple(options)

    def release(self, handle: PeerHandle) -> None:
        """The session is over."""
        self._addresses.release(handle)


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
