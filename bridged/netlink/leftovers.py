"""Undoes what a killed daemon left on the host and the configuration no longer wants.

Runs before anything new is made. A bridge that is wanted as before is not touched, so it loses no frame.
Blocking, some milliseconds for each bridge.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridged.errors import BridgedError, ShutdownErrors
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink.attachment_state import AttachmentEvent
from bridged.netlink.journal import Journal
from bridged.netlink.reconciler import Reconciler


def undo_leftovers(folder: Path, wishes: Mapping[str, BridgeWish | None]) -> list[AttachmentEvent]:
    """Undo everything in the journals of `folder` that `wishes` (by bridge name) do not cover.

    None as a wish: the bridge has a keeper already, and is not touched.
    What cannot be undone stays in its journal (event `bridge_leftovers_remain`): call this again. Damaged
    journals are renamed (`bridge_journal_damaged`). Never raises.
    """
    events: list[AttachmentEvent] = []
    for path in sorted(folder.glob("*.json")):
        if path.stem not in wishes or wishes[path.stem] is not None:
            events += _restore(path, wishes.get(path.stem))
    return events


def _restore(path: Path, wish: BridgeWish | None) -> list[AttachmentEvent]:
    keeper = Reconciler(BridgeWish(path.stem), tuple, Journal(path))
    try:
        earlier = keeper.claims.take_over()
        if earlier is not None and (wish is None or not wish.covers(earlier)):
            keeper.restore()
            keeper.reports.tell("bridge_leftovers_given_back")
    except (ShutdownErrors, BridgedError, OSError) as error:
        keeper.reports.tell("bridge_leftovers_remain", reason=str(error))
    finally:
        keeper.close()
    return keeper.reports.take()
