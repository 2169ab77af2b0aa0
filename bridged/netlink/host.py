"""The host's links as the daemon sees and changes them, in the network namespace of the calling thread.

Source: rtnetlink(7).
Blocking, each call for a few milliseconds; `BridgeAttachment` runs it in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from ..errors import NetlinkError, ShutdownErrors
from ..switching.actions import Action, inverse
from ..switching.links import HostLinks
from .observe import observe
from .perform import perform
from .route_socket import RouteSocket


class Host:
    """Reads and changes links, addresses and routes. Not thread-safe; one per thread.

    Raises:
        NetlinkError: in all methods; `operation` and `link` say where the kernel refused.
    """

    def __init__(self) -> None:
        self.kernel = RouteSocket()

    def close(self) -> None:
        self.kernel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self, routes_by: Collection[str] | None = None) -> HostLinks:
        """Links, addresses and routes as they are now; see `observe.observe` for `routes_by`."""
        return observe(self.kernel, routes_by)

    def apply(self, actions: Sequence[Action]) -> None:
        """All of the actions, or none: where one fails, those before it are taken back, newest first.

        Raises:
            NetlinkError: of the action that failed. What could not be taken back hangs on it as a note.
        """
        for position, action in enumerate(actions):
            try:
                perform(self.kernel, action)
            except NetlinkError as error:
                for undone in self.apply_all(inverse(actions[:position])):
                    error.add_note(f"not taken back: {undone}")
                raise

    def apply_all(self, actions: Sequence[Action]) -> list[NetlinkError]:
        """All of the actions that can be done; the errors of the others, in order."""
        errors: list[NetlinkError] = []
        for action in actions:
            try:
                perform(self.kernel, action)
            except NetlinkError as error:
                errors.append(error)
        return errors

    def give_back(self, actions: Sequence[Action]) -> None:
        """A way back, which goes on to its end.

        Raises:
            ShutdownErrors: with everything that could not be done.
        """
        errors = self.apply_all(actions)
        if errors:
            raise ShutdownErrors(errors)
