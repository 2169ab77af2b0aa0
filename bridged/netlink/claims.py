"""What is ours on the host for one bridge, and its record on disk."""

from __future__ import annotations

from bridged.link_planning.wishes import BridgeWish, Ownership
from bridged.netlink.journal import Journal
from bridged.netlink.reports import Reports
from bridged.supervision import SUPERVISOR


class Claims:
    """Keeps `ownership` and writes it to the journal before anything is done (None: nowhere).

    A journal that cannot be written is reported once, and `write` tries again with each change.
    """

    def __init__(self, name: str, journal: Journal | None, reports: Reports) -> None:
        self.ownership = Ownership()
        self._name = name
        self._journal = journal
        self._reports = reports
        self.is_unwritten = False
        """The record on disk is not the present one."""

    def take_over(self) -> BridgeWish | None:
        """Go on with what a killed daemon left; its wish, where there is a record. Never raises."""
        if self._journal is None:
            return None
        kept = self._journal.load()
        if self._journal.damage is not None:
            SUPERVISOR.count("bridge_journal")
            self._reports.tell("bridge_journal_damaged", reason=self._journal.damage)
        if kept is None:
            return None
        self.ownership = kept.ownership
        # An older version recorded no wish. Then everything it did is undone, whatever is wished now.
        return kept.wish or BridgeWish("")

    def write(self, ownership: Ownership, wish: BridgeWish) -> None:
        """This is ours from now on."""
        self.ownership = ownership
        if self._journal is None:
            return
        try:
            self._journal.store(ownership, wish)
        except OSError as error:
            if not self.is_unwritten:
                self._reports.tell("bridge_journal_failed", reason=str(error))
            self.is_unwritten = True
            SUPERVISOR.note_failure("bridge_journal", self._name, error)
        else:
            if self.is_unwritten:
                self.is_unwritten = False
                SUPERVISOR.note_done("bridge_journal", self._name)

    def close(self) -> None:
        if self.is_unwritten:
            SUPERVISOR.forget("bridge_journal", self._name)
