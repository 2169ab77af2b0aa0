"""Look, plan, do: what one bridge needs to be as configured, and the way back.

Whatever changed on the host, the answer is the same, so the order in which links appear does not matter, and
lost events cost one look.

Blocking, a few milliseconds at a time; all methods are called from one thread at a time.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from bridged.errors import BridgedError, NetlinkError, ShutdownErrors
from bridged.link_planning.actions import Action, AddAddress, AddRoute, Attach, described
from bridged.link_planning.giving_back import claim, plan_return, recognise
from bridged.link_planning.links import BridgeWish, HostLinks, Ownership
from bridged.link_planning.plan import plan, unfit_links
from bridged.netlink.announce import announce
from bridged.netlink.attachment_state import AttachmentEvent, AttachmentStatus
from bridged.netlink.host import Host
from bridged.netlink.inet6 import solicit_routers
from bridged.netlink.journal import Journal
from bridged.netlink.repairs import Key, Repairs
from bridged.netlink.tunnel_route import carrying_ports, check_ports
from bridged.supervision import SUPERVISOR

ADOPTED_GRACE_SECONDS = 1.0
"""An adopted bridge that vanished is given this long to be made again by its owner before we make it."""
REPEAT_ANNOUNCEMENT_SECONDS = 2.0
"""RFC 5227, section 1.1: ANNOUNCE_NUM is 2, ANNOUNCE_INTERVAL 2 seconds."""
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 15.0
PASSES = 5
"""Looks in a row until nothing is left to do; more would mean that others change things all the time."""
PAUSE_SECONDS = 0.02
UNSTEADY = frozenset({errno.ENODEV, errno.ENXIO, errno.EEXIST, errno.EBUSY, errno.ENETUNREACH})
"""Refusals that a link which came, went or fell between look and deed explains."""


@dataclass(slots=True)
class _Failure:
    """Something that was refused: tried again at `next_at` (monotonic seconds), ever more seldom."""

    count: int
    next_at: float
    reason: str


class Reconciler:
    """One bridge's state, and the netlink socket of the thread that works on it.

    `destinations` gives the addresses that the bridge's tunnels need, as far as known (see `check_ports`).
    `journal` is where the record of what is ours outlives a killed daemon; None: nowhere.
    """

    def __init__(
        self,
        wish: BridgeWish,
        destinations: Callable[[], Collection[str]],
        journal: Journal | None = None,
    ) -> None:
        self.wish = wish
        self.ownership = Ownership()
        self.events: list[AttachmentEvent] = []
        self._destinations = destinations
        self._journal = journal
        self._opened: Host | None = None
        self._observed = HostLinks()
        self._indices: frozenset[int] = frozenset()
        self._repairs = Repairs()
        self._failures: dict[Key, _Failure] = {}
        self._problem: str | None = None
        self._vanished_at: float | None = None
        self._is_unwritten = False
        self._missing_told: frozenset[str] = frozenset()
        # Addresses to announce once more, and when (monotonic seconds).
        self._to_repeat: list[AddAddress] = []
        self._repeat_at = 0.0

    @property
    def known_indices(self) -> frozenset[int]:
        """Of the links that the last look saw: what concerns this bridge, also once it is gone."""
        return self._indices

    @property
    def _host(self) -> Host:
        if self._opened is None:
            self._opened = Host()
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._is_unwritten:
            SUPERVISOR.forget("bridge_journal", self.wish.name)

    def start(self) -> None:
        """Bring about everything that can be by now.

        Raises:
            ConfigurationError: the wish cannot be met on this host; nothing was changed.
            NetlinkError: the kernel refused; what was done before was taken back.
        """
        self.take_over()
        try:
            self._bring_about()
        except BridgedError as error:
            for left in self._give_back():
                error.add_note(f"not taken back: {left}")
            raise

    def take_over(self) -> BridgeWish | None:
        """Go on with what a killed daemon left; its wish, where there is a record. Never raises."""
        if self._journal is None:
            return None
        kept = self._journal.load()
        if self._journal.damage is not None:
            SUPERVISOR.count("bridge_journal")
            self._tell("bridge_journal_damaged", reason=self._journal.damage)
        if kept is None:
            return None
        self.ownership = kept.ownership
        # An older version kept no wish: then what it did is given back, whatever is wished now.
        return kept.wish or BridgeWish("")

    def change(self, wish: BridgeWish) -> None:
        """Keep the bridge as `wish` says from now on. What the old wish alone asked for is not given back.

        Raises:
            ConfigurationError, NetlinkError: the old wish is kept; what was done for the new one stays.
        """
        before = self.wish
        self.wish = wish
        try:
            self._bring_about()
        except BridgedError:
            self.wish = before
            raise
        self._claim(self.ownership)

    def check(self, wish: BridgeWish, ours: Collection[str] = ()) -> None:
        """Whether `wish` could be met now; nothing is changed, not even what is known.

        `ours`: bridges of this process; a port that one of them holds counts as free.

        Raises:
            ConfigurationError: as `start`.
        """
        names = {wish.name, *wish.ports, *(tap.name for tap in wish.taps)}
        seen = self._host.observe(names, routes_by=names)
        free = set(ours) - {wish.name}
        links = tuple(replace(link, master=None) if link.master in free else link for link in seen.links)
        observed = replace(seen, links=links)
        check_ports(self._host.kernel, wish, self._destinations(), self.ownership, observed)
        for error in unfit_links(observed, wish).values():
            raise error

    def _bring_about(self) -> None:
        for attempt in range(PASSES):
            observed = self._look()
            check_ports(self._host.kernel, self.wish, self._destinations(), self.ownership, observed)
            actions = plan(observed, self.wish, self.ownership)
            if not actions:
                self._repairs.settle(observed)
                # Who has configured it hears of it by `host_warnings`.
                self._missing_told = self._missing_ports()
                return
            try:
                self._apply(actions)
            except NetlinkError as error:
                if error.number not in UNSTEADY or attempt == PASSES - 1:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                self._tell("bridge_applied", actions=described(actions))

    def look(self) -> float | None:
        """Repair what is amiss; returns the seconds until the next look is due (None: at the next change)."""
        problems: list[str] = []
        if self._is_unwritten:
            self._claim(self.ownership)
        for _ in range(PASSES):
            problems = []
            try:
                self._announce_again()
                actions = self._missing(problems)
                if not actions:
                    self._forget_failures()
                    if not problems and not self._failures:
                        self._repairs.settle(self._observed)
                    break
                repaired = self._apply(actions)
            except NetlinkError as error:
                self._failed(error)
                continue
            if repaired:
                self._tell("bridge_repaired", actions=described(actions))
        self._tell_missing()
        problems += [failure.reason for failure in self._failures.values()]
        self._set_problem("; ".join(dict.fromkeys(problems)) or None)
        return self._delay()

    def give_back(self) -> None:
        """Put everything back as it was before `start`.

        Raises:
            ShutdownErrors: what could not be; the rest is.
        """
        errors = self._give_back()
        if errors:
            raise ShutdownErrors(errors)

    def status(self) -> AttachmentStatus:
        """As of the last look."""
        observed = self._observed
        bridge = observed.link(self.wish.name)
        ports: dict[str, bool] = {}
        for name in (*self.wish.ports, *(tap.name for tap in self.wish.taps)):
            link = observed.link(name)
            ports[name] = link is not None and link.carrier and link.master == self.wish.name
        return AttachmentStatus(
            name=self.wish.name,
            mac=str(bridge.mac) if bridge is not None and bridge.mac is not None else None,
            mtu=bridge.mtu if bridge is not None else None,
            adopted=self.ownership.bridge_before is not None,
            ports=ports,
            repairs=dict(self._repairs.counts),
            problem=self._problem,
            missing=tuple(sorted(self._missing_ports())),
        )

    def _look(self) -> HostLinks:
        ours = {self.wish.name, *self.wish.ports, *(link.name for link in self.ownership.links_before)}
        others = {
            *(tap.name for tap in self.wish.taps),
            # A multipath route goes by other links as well; it can return where they are still there.
            *(link for route in self.ownership.routes for link in route.links),
        }
        self._observed = self._host.observe(ours | others, routes_by=ours)
        self._indices = frozenset(link.index for link in self._observed.links)
        self.ownership = recognise(self.ownership, self._observed, self.wish.name)
        return self._observed

    def _apply(self, actions: list[Action]) -> bool:
        """Do what was planned from the last look; True where some of it was a repair."""
        before = self.ownership
        # Written before it is done: killed in between, we still know what there is to give back.
        self._claim(claim(before, self._observed, actions, self.wish.name))
        try:
            self._host.apply(actions)
        except NetlinkError as error:
            self._claim(before)
            raise self._explained(error) from error
        self._announce(actions)
        for action in actions:
            self._failures.pop((action.name, action.link), None)
        return bool(self._repairs.note(actions, self._observed, time.monotonic()))

    def _explained(self, error: NetlinkError) -> NetlinkError:
        """Of a port that may not join: with what holds it, where that can be found."""
        action = self._host.failed_action
        if not isinstance(action, Attach):
            return error
        try:
            holder = self._host.holder_of(action.link)
        except NetlinkError:
            return error
        if holder is None:
            return error
        text = f"{action.link} cannot join the bridge: {holder}"
        return NetlinkError(error.operation, error.link, error.number, text)

    def _announce(self, actions: list[Action]) -> None:
        made = [action for action in actions if isinstance(action, AddAddress | AddRoute)]
        kernels = {
            action.link
            for action in made
            if (action.address if isinstance(action, AddAddress) else action.route).is_kernels
        }
        for link in self._host.observe(kernels).links if kernels else ():
            if link.name in kernels:
                solicit_routers(link)
        added = [action for action in actions if isinstance(action, AddAddress)]
        if added:
            announce(added, self._holders(added))
            self._to_repeat += added
            self._repeat_at = time.monotonic() + REPEAT_ANNOUNCEMENT_SECONDS

    def _holders(self, added: list[AddAddress]) -> HostLinks:
        return self._host.observe({action.link for action in added})

    def _announce_again(self) -> None:
        """A neighbour that was told something else a moment ago believes only the second time."""
        if self._to_repeat and time.monotonic() >= self._repeat_at:
            added, self._to_repeat = self._to_repeat, []
            observed = self._holders(added)
            held = {(address.link, address.key) for address in observed.addresses}
            announce([add for add in added if (add.address.link, add.address.key) in held], observed)

    def _claim(self, ownership: Ownership) -> None:
        self.ownership = ownership
        if self._journal is not None:
            try:
                self._journal.store(ownership, self.wish)
            except OSError as error:
                if not self._is_unwritten:
                    self._tell("bridge_journal_failed", reason=str(error))
                self._is_unwritten = True
                SUPERVISOR.note_failure("bridge_journal", self.wish.name, error)
            else:
                if self._is_unwritten:
                    self._is_unwritten = False
                    SUPERVISOR.note_done("bridge_journal", self.wish.name)

    def _missing(self, problems: list[str]) -> list[Action]:
        observed = self._look()
        now = time.monotonic()
        if self._waits_for_owner(observed, now):
            return []
        held = set(self._repairs.held_back(now))
        held |= {key for key, failure in self._failures.items() if failure.next_at > now}
        for name, error in unfit_links(observed, self.wish).items():
            problems.append(error.reason)
            if name == self.wish.name:
                return []
            held.add((Attach.name, name))
        actions = plan(observed, self.wish, self.ownership, frozenset(held))
        joining = {action.link for action in actions if isinstance(action, Attach)} & set(self.wish.ports)
        if joining:
            carrying = carrying_ports(
                self._host.kernel, self.wish, self._destinations(), self.ownership, observed
            )
            for name in joining & carrying.keys():
                problems.append(f"{name} carries the tunnel itself (the route to {carrying[name]})")
                held.add((Attach.name, name))
            if joining & carrying.keys():
                actions = plan(observed, self.wish, self.ownership, frozenset(held))
        return actions

    def _waits_for_owner(self, observed: HostLinks, now: float) -> bool:
        """An adopted bridge has vanished and its owner may be about to make it again."""
        if observed.link(self.wish.name) is not None or self.ownership.bridge_before is None:
            self._vanished_at = None
            return False
        if self._vanished_at is None:
            self._vanished_at = now
        return now < self._vanished_at + ADOPTED_GRACE_SECONDS

    def _failed(self, error: NetlinkError) -> None:
        """Leave what was refused alone for a while, so that the rest is done."""
        action = self._host.failed_action
        key = (action.name, action.link) if action is not None else ("look", error.link)
        known = self._failures.get(key)
        count = known.count + 1 if known is not None else 0
        delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(count, 10))
        self._failures[key] = _Failure(count, time.monotonic() + delay, error.message)

    def _forget_failures(self) -> None:
        """What was due to be tried again and turned out not to be needed any more."""
        now = time.monotonic()
        self._failures = {key: failure for key, failure in self._failures.items() if failure.next_at > now}

    def _delay(self) -> float | None:
        now = time.monotonic()
        times = [failure.next_at for failure in self._failures.values()]
        if self._vanished_at is not None:
            times.append(self._vanished_at + ADOPTED_GRACE_SECONDS)
        if self._to_repeat:
            times.append(self._repeat_at)
        due = self._repairs.next_due(now)
        if due is not None:
            times.append(due)
        return max(PAUSE_SECONDS, min(times) - now) if times else None

    def _missing_ports(self) -> frozenset[str]:
        return frozenset(name for name in self.wish.ports if self._observed.link(name) is None)

    def _tell_missing(self) -> None:
        """Say once that a port has gone, or has come."""
        missing = self._missing_ports()
        for name in sorted(missing - self._missing_told):
            self._tell("bridge_port_missing", port=name)
        for name in sorted(self._missing_told - missing):
            if name in self.wish.ports:
                self._tell("bridge_port_found", port=name)
        self._missing_told = missing

    def _set_problem(self, problem: str | None) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if problem is None:
            self._tell("bridge_problem_over")
        else:
            self._tell("bridge_problem", reason=problem)

    def _tell(self, name: str, **details: str) -> None:
        self.events.append(AttachmentEvent(name, self.wish.name, details))

    def _give_back(self) -> list[BridgedError]:
        """What could not be given back, in order."""
        errors: list[BridgedError] = []
        try:
            for _ in range(PASSES):
                actions = plan_return(self._look(), self.ownership, self.wish.name)
                if not actions:
                    self._claim(Ownership())
                    return []
                errors = list(self._host.apply_all(actions))
                self._announce(actions)
        except NetlinkError as error:
            errors.append(error)
        return errors
