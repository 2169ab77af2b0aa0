"""The soak's many light clients: their certificates, their addresses and their program."""

from __future__ import annotations

from tests.bench.churning_clients import __file__ as PROGRAM
from tests.bench.clients_program import ClientsProgram, add_addresses, write_identities
from tests.bench.soak_watch import Check
from tests.lab.core import Lab
from tests.lab.openvpn import Profile
from tests.lab.topology import Hub, Site

ANSWER_SECONDS = 20.0


class Visitors:
    """The program of the light clients at `site`; none where `peers` is 0."""

    def __init__(self, lab: Lab, hub: Hub, site: Site, profile: Profile, peers: int) -> None:
        self._peers = peers
        self._port = profile.port
        self._space = site.namespace
        self._identities = lab.directory / "visitors"
        self._program: ClientsProgram | None = None
        self._counts: dict[str, int] = {}
        add_addresses(hub.server.namespace, self._space, peers)
        write_identities(self._identities, profile, peers, "visitor")

    def start(self) -> None:
        if self._peers:
            self._program = ClientsProgram(self._space, PROGRAM, self._identities, self._port)
            self._program.answer(ANSWER_SECONDS)

    def end(self) -> None:
        if self._program is not None:
            self._program.say("end")
            self._counts = self._program.answer(ANSWER_SECONDS)
            self._program.close()

    def verdict(self) -> Check:
        lost = [name for name in self._counts if name.startswith("lost")]
        good = not self._peers or (self._counts.get("connected", 0) >= self._peers // 4 and not lost)
        return Check(f"{self._peers} light clients", str(self._counts), good)
