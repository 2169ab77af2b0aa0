"""Look, plan, do: brings one bridge to what is configured, and back.

The answer to every change of the host is the same: the order in which links appear does not matter, and a
lost event costs one look.

Blocking, a few milliseconds at a time; one thread at a time calls the methods.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from bridged.endings import take_every_step
from bridged.errors import BridgedError, NetlinkError, ShutdownErrors
from bridged.link_planning.actions import Action, Attach, described
from bridged.link_planning.links import HostLinks
from bridged.link_planning.plan import plan, unfit_links
from bridged.link_planning.repairs import Repairs
from bridged.link_planning.retries import Retries
from bridged.link_planning.undoing import claim, plan_undo, recognise
from bridged.link_planning.wishes import BridgeWish, Ownership
from bridged.netlink.announcer import Announcer
from bridged.netlink.attachment_state import AttachmentStatus
from bridged.netlink.claims import Claims
from bridged.netlink.host import Host
from bridged.netlink.journal import Journal
from bridged.netlink.reports import Reports
from bridged.netlink.tunnel_route import carrying_ports, check_ports

ADOPTED_GRACE_SECONDS = 1.0
"""How long an adopted bridge may be missing before we make it: its owner may be about to make it again."""
PASSES = 5
"""Looks in a row until nothing is left to do. More would mean that others change things all the time."""
PAUSE_SECONDS = 0.02
UNSTEADY = frozenset({errno.ENODEV, errno.ENXIO, errno.EEXIST, errno.EBUSY, errno.ENETUNREACH})
"""Refusals that are explained by a link which came, went or fell between look and deed."""


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
        self.reports = Reports(wish.name)
        self.claims = Claims(wish.name, journal, self.reports)
        self._destinations = destinations
        self._opened: Host | None = None
        self._announcer = Announcer(lambda: self._host)
        self._observed = HostLinks()
        self._indices: frozenset[int] = frozenset()
        self._repairs = Repairs()
        self._retries = Retries()
        self._vanished_at: float | None = None

    @property
    def known_indices(self) -> frozenset[int]:
        """Of the links in the last look, so that events of a link that is gone are recognised."""
        return self._indices

    @property
    def _host(self) -> Host:
        if self._opened is None:
            self._opened = Host()
        return self._opened

    def close(self) -> None:
        opened, self._opened = self._opened, None
        take_every_step([self.claims.close] if opened is None else [opened.close, self.claims.close])

    # --- verbs ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Do everything that is possible now.

        Raises:
            ConfigurationError: the wish cannot be met on this host; nothing was changed.
            NetlinkError: the kernel refused; what was done before was undone.
        """
        self.claims.take_over()
        try:
            self._bring_about()
        except BridgedError as error:
            for left in self._restore():
                error.add_note(f"not undone: {left}")
            raise

    def change(self, wish: BridgeWish) -> None:
        """Keep the bridge as `wish` says from now on. What only the old wish asked for is not undone.

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
        self.claims.write(self.claims.ownership, self.wish)

    def check(self, wish: BridgeWish, ours: Collection[str] = ()) -> None:
        """Whether `wish` could be met now. Nothing is changed, not even what is known.

        `ours`: bridges of this process; a port that one of them holds counts as free.

        Raises:
            ConfigurationError: as `start`.
        """
        names = {wish.name, *wish.ports, *(tap.name for tap in wish.taps)}
        seen = self._host.observe(names, routes_by=names)
        free = set(ours) - {wish.name}
        links = tuple(replace(link, master=None) if link.master in free else link for link in seen.links)
        observed = replace(seen, links=links)
        check_ports(self._host.kernel, wish, self._destinations(), self.claims.ownership, observed)
        for error in unfit_links(observed, wish).values():
            raise error

    def look(self) -> float | None:
        """Repair what is amiss. Returns the seconds until the next look is due (None: at the next change)."""
        problems: list[str] = []
        if self.claims.is_unwritten:
            self.claims.write(self.claims.ownership, self.wish)
        for _ in range(PASSES):
            problems = []
            try:
                self._announcer.announce_again()
                actions = self._missing(problems)
                if not actions:
                    self._retries.forget_due(time.monotonic())
                    if not problems and not self._retries:
                        self._repairs.settle(self._observed)
                    break
                repaired = self._apply(actions)
            except NetlinkError as error:
                self._note_refused(error)
                continue
            if repaired:
                self.reports.tell("bridge_repaired", actions=described(actions))
        self.reports.note_missing(self._missing_ports(), self.wish.ports)
        self.reports.note_problems([*problems, *self._retries.reasons()])
        return self._delay()

    def restore(self) -> None:
        """Return the host to how it was before `start`.

        Raises:
            ShutdownErrors: what could not be restored; the rest was.
        """
        errors = self._restore()
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
            adopted=self.claims.ownership.bridge_before is not None,
            ports=ports,
            repairs=dict(self._repairs.counts),
            problem=self.reports.problem,
            missing=tuple(sorted(self._missing_ports())),
        )

    # --- look -------------------------------------------------------------------------------------

    def _look(self) -> HostLinks:
        ownership = self.claims.ownership
        ours = {self.wish.name, *self.wish.ports, *(link.name for link in ownership.links_before)}
        others = {
            *(tap.name for tap in self.wish.taps),
            # A multipath route goes by other links as well; it can return where they are still there.
            *(link for route in ownership.routes for link in route.links),
        }
        self._observed = self._host.observe(ours | others, routes_by=ours)
        self._indices = frozenset(link.index for link in self._observed.links)
        self.claims.ownership = recognise(ownership, self._observed, self.wish.name)
        return self._observed

    def _missing_ports(self) -> frozenset[str]:
        return frozenset(name for name in self.wish.ports if self._observed.link(name) is None)

    # --- plan -------------------------------------------------------------------------------------

    def _missing(self, problems: list[str]) -> list[Action]:
        """What to do now. Appends to `problems` why some of it has to wait."""
        observed = self._look()
        now = time.monotonic()
        if self._waits_for_owner(observed, now):
            return []
        held = {*self._repairs.held_back(now), *self._retries.held_back(now)}
        for name, error in unfit_links(observed, self.wish).items():
            problems.append(error.reason)
            if name == self.wish.name:
                return []
            held.add((Attach.name, name))
        actions = plan(observed, self.wish, self.claims.ownership, frozenset(held))
        joining = {action.link for action in actions if isinstance(action, Attach)} & set(self.wish.ports)
        carrying = self._carrying(observed) if joining else {}
        for name in joining & carrying.keys():
            problems.append(f"{name} carries the tunnel itself (the route to {carrying[name]})")
            held.add((Attach.name, name))
        if joining & carrying.keys():
            return plan(observed, self.wish, self.claims.ownership, frozenset(held))
        return actions

    def _carrying(self, observed: HostLinks) -> dict[str, str]:
        """Ports that carry the tunnel now, each with the destination that shows it."""
        kernel = self._host.kernel
        return carrying_ports(kernel, self.wish, self._destinations(), self.claims.ownership, observed)

    def _waits_for_owner(self, observed: HostLinks, now: float) -> bool:
        """An adopted bridge has vanished, and its owner may be about to make it again."""
        if observed.link(self.wish.name) is not None or self.claims.ownership.bridge_before is None:
            self._vanished_at = None
            return False
        if self._vanished_at is None:
            self._vanished_at = now
        return now < self._vanished_at + ADOPTED_GRACE_SECONDS

    def _delay(self) -> float | None:
        now = time.monotonic()
        due = [self._retries.next_due(), self._announcer.next_due(), self._repairs.next_due(now)]
        if self._vanished_at is not None:
            due.append(self._vanished_at + ADOPTED_GRACE_SECONDS)
        times = [at for at in due if at is not None]
        return max(PAUSE_SECONDS, min(times) - now) if times else None

    # --- do ---------------------------------------------------------------------------------------

    def _bring_about(self) -> None:
        for attempt in range(PASSES):
            observed = self._look()
            ownership = self.claims.ownership
            check_ports(self._host.kernel, self.wish, self._destinations(), ownership, observed)
            actions = plan(observed, self.wish, ownership)
            if not actions:
                self._repairs.settle(observed)
                self.reports.expect_missing(self._missing_ports())
                return
            try:
                self._apply(actions)
            except NetlinkError as error:
                if error.number not in UNSTEADY or attempt == PASSES - 1:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                self.reports.tell("bridge_applied", actions=described(actions))

    def _apply(self, actions: list[Action]) -> bool:
        """Do what was planned from the last look. True where some of it was a repair."""
        before = self.claims.ownership
        # Written before it is done: if we are killed in between, the record says what to undo.
        self.claims.write(claim(before, self._observed, actions, self.wish.name), self.wish)
        try:
            self._host.apply(actions)
        except NetlinkError as error:
            self.claims.write(before, self.wish)
            raise self._explained(error) from error
        self._announcer.announce(actions)
        for action in actions:
            self._retries.note_done((action.name, action.link))
        return bool(self._repairs.note(actions, self._observed, time.monotonic()))

    def _explained(self, error: NetlinkError) -> NetlinkError:
        """For a port that may not join: with what holds it, where that can be found."""
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

    def _note_refused(self, error: NetlinkError) -> None:
        action = self._host.failed_action
        key = (action.name, action.link) if action is not None else ("look", error.link)
        self._retries.note_refused(key, error.message, time.monotonic())

    def _restore(self) -> list[BridgedError]:
        """Undo everything. Returns what failed, in order."""
        errors: list[BridgedError] = []
        try:
            for _ in range(PASSES):
                actions = plan_undo(self._look(), self.claims.ownership, self.wish.name)
                if not actions:
                    self.claims.write(Ownership(), self.wish)
                    return []
                errors = list(self._host.apply_all(actions))
                self._announcer.announce(actions)
        except NetlinkError as error:
            errors.append(error)
        return errors
