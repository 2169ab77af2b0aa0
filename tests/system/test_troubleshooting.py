"""The troubleshooting page: each cause is produced, and what the page quotes is what the daemons say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.lab import wait_for
from tests.lab.waiting import LabError
from tests.system.troubled_sites import HAS_BRIDGE_FILTER, Evidence, TroubledSites, troubled_sites

pytestmark = pytest.mark.root

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "troubleshooting.md"
SECONDS: Final = 30.0

SUBJECTS: Final[dict[str, dict[str, str]]] = {
    "no-answer": {"client": "silent"},
    "closed-port": {"client": "closed"},
    "name-lookup": {"client": "nameless"},
    "wrong-wrap-key": {"server": "wraps", "client": "other-key"},
    "other-wrapping": {"server": "wraps", "client": "unwrapped"},
    "older-packets": {"server": "old-key"},
    "refused-key": {"server": "keys", "client": "stolen"},
    "keys-unchecked": {"server": "keys", "client": "unasked"},
    "framing": {"server": "wraps"},
    "compression": {"server": "wraps"},
    "foreign-ca": {"server": "certificates", "client": "foreign"},
    "certificate-expired": {"server": "certificates", "client": "expired"},
    "certificate-revoked": {"server": "certificates", "client": "revoked"},
    "name-not-allowed": {"server": "certificates", "client": "misnamed"},
    "wrong-role": {"server": "certificates", "client": "wrong-role"},
    "wrong-password": {"server": "asking", "client": "wrong-password"},
    "passwords-unchecked": {"server": "unsure", "client": "unchecked"},
    "server-full": {"server": "full", "client": "full[12]"},
    "packet-filter": {"client": "good"},
    "port-missing": {"client": "good"},
    "claimed-address": {"server": "main"},
    "larger-frames": {"client": "silent"},
    "lost-fragments": {"server": "main"},
    "two-machines": {"server": "main", "client": "twin[12]"},
    "tunnel-loop": {"client": "ring2"},
    "portable": {"client": "good"},
    "frame-by-frame": {"server": "main"},
    "wan-offloads": {"host": "lone"},
    "kernel-fault": {"host": "lone"},
    "clock-old": {"host": "lone"},
    "tun-missing": {"host": "lone", "prints": "tun-missing"},
    "bridge-held": {"prints": "bridge-held"},
    "adapter-held": {"prints": "adapter-held"},
    "port-held": {"prints": "port-held"},
    "address-taken": {"prints": "address-taken"},
    "disk-full": {"prints": "disk-full"},
    "state-closed": {"prints": "state-closed"},
    "file-closed": {"prints": "file-closed"},
    "mistake": {"server": "main"},
    "carries-the-tunnel": {"client": "good"},
}
"""Anchor on the page -> who says it: the tunnel at each end (a pattern), or a daemon that does not start.

`host`: the daemon on the odd machine.
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of a block. `end`: server, client, host or empty; `kind`: log, status, metric or prints."""

    end: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    anchor: str
    body: str
    claims: tuple[Claim, ...]


def entries() -> list[Entry]:
    """What the page has, in its order."""
    found = []
    for part in PAGE.read_text().split('<a id="')[1:]:
        anchor, _, body = part.partition('"')
        block = re.search(r"```text\n(.*?)```", body, re.DOTALL)
        lines = block[1].splitlines() if block else []
        found.append(Entry(anchor, body, tuple(claim(line) for line in lines)))
    return found


def claim(line: str) -> Claim:
    match = re.fullmatch(r"(?:(server|client|host) )?(log|status|metric|prints): (.+)", line)
    assert match, f"not a line that a test can hold: {line}"
    return Claim(match[1] or "", match[2], match[3])


ENTRIES: Final = {entry.anchor: entry for entry in entries()}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TroubledSites]:
    with troubled_sites(tmp_path_factory.mktemp("trouble")) as found:
        yield found


def test_every_entry_has_evidence_a_cause_a_cure_and_a_reproduction() -> None:
    assert len(ENTRIES) >= 20 and len(ENTRIES) == len(entries()), "one anchor, one entry"
    assert ENTRIES.keys() == SUBJECTS.keys()
    for entry in ENTRIES.values():
        kinds = {claim.kind for claim in entry.claims}
        assert kinds & {"log", "prints"} and "**Cause.** " in entry.body, entry.anchor
        assert "`" in entry.body.partition("**Cure.** ")[2], f"{entry.anchor}: a command or a line"


def test_what_the_page_names_exists() -> None:
    """Anchors that are linked to, metrics, and the links that lead to the page."""
    text = PAGE.read_text()
    assert set(re.findall(r"\(#([a-z-]+)\)", text)) <= ENTRIES.keys()
    table = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for entry in ENTRIES.values():
        for one in entry.claims:
            if one.kind == "metric":
                assert f"`{one.text.split('{')[0].split()[0]}`" in table
    assert "docs/troubleshooting.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("anchor", ENTRIES)
def test_the_daemons_say_what_the_page_quotes(anchor: str, sites: TroubledSites) -> None:
    if anchor == "packet-filter":
        assert HAS_BRIDGE_FILTER, "br_netfilter is not loaded"
    subject = SUBJECTS[anchor]
    for one in ENTRIES[anchor].claims:
        try:
            wait_for(partial(comes_true, one, sites, subject), f"{anchor}: {one}", SECONDS, 0.3)
        except LabError as error:
            raise AssertionError("\n".join([str(error), *said(one, sites, subject)])) from None


def comes_true(one: Claim, sites: TroubledSites, subject: dict[str, str]) -> bool:
    """What was asked before is enough, as long as it shows the line."""
    if is_true(one, sites, subject):
        return True
    if one.kind in ("status", "metric"):
        evidence_of(one, sites).ask()
    return is_true(one, sites, subject)


def evidence_of(one: Claim, sites: TroubledSites) -> Evidence:
    return {"server": sites.server, "client": sites.client, "host": sites.odd}[one.end]


def is_true(one: Claim, sites: TroubledSites, subject: dict[str, str]) -> bool:
    lines = said(one, sites, subject)
    if one.kind == "metric":
        return any(has_sample(one.text, line) for line in lines)
    pattern = ".*?".join(re.escape(piece.strip()) for piece in one.text.split("…"))
    return any(re.search(pattern, line) for line in lines)


def said(one: Claim, sites: TroubledSites, subject: dict[str, str]) -> list[str]:
    """Lines of that kind about the subject, with single spaces."""
    if not one.end:
        return [" ".join(line.split()) for line in sites.refused[subject["prints"]].output().splitlines()]
    evidence = evidence_of(one, sites)
    tunnel = subject[one.end]
    return {"log": evidence.log, "status": evidence.status, "metric": evidence.metrics}[one.kind](tunnel)


def has_sample(text: str, line: str) -> bool:
    """`NAME{label="value"}` is not 0; `NAME 0` is."""
    head, _, wanted = text.partition(" ")
    name, _, labels = head.rstrip("}").partition("{")
    shown, _, value = line.rpartition(" ")
    if shown.partition("{")[0] != name or not all(label in shown for label in labels.split(",")):
        return False
    return float(value) == float(wanted) if wanted else float(value) != 0
