"""Decides, before traffic, what is joined into super-frames on the way into a tunnel's TAP.

`coalesce: auto` joins what passed the self-test (super_frame_trial.py), unless this kernel release is known
to damage it; `on` joins whatever the TAP accepts; `off` nothing.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import structlog

from bridged.dataplane import Build, CoalesceKind, coalesce, coalesce_kinds
from bridged.dataplane.contract import TapPort
from bridged.errors import BridgedError
from bridged.runtime.kernel_release import find_udp_fault
from bridged.runtime.tunnels.scratch_path import ScratchPath
from bridged.runtime.tunnels.super_frame_trial import TrialPath, TrialResult, try_super_frames

CoalesceMode = Literal["auto", "on", "off"]
Cause = Literal["config", "selftest"]
"""Of a refusal, as in `offload_fallbacks_total`. `config`: a rule for this kernel; `selftest`: it failed."""

_UDP: Final[frozenset[CoalesceKind]] = frozenset({"udp4", "udp6"})


@dataclass(frozen=True, slots=True)
class Coalescing:
    """The decision. `refused`: what the data plane could join but must not: kind -> (cause, reason)."""

    kinds: frozenset[CoalesceKind]
    refused: dict[CoalesceKind, tuple[Cause, str]] = field(default_factory=dict)

    def fallbacks(self) -> Counter[tuple[str, str]]:
        """The refusals, counted by (offload, cause)."""
        return Counter(("coalesce", cause) for cause, _ in self.refused.values())

    def described(self) -> dict[str, str]:
        """Kind -> `joined` or the reason against it, for people."""
        words: dict[str, str] = dict.fromkeys(self.kinds, "joined")
        words |= {kind: reason for kind, (_, reason) in self.refused.items()}
        return dict(sorted(words.items()))


class CoalescingGuard:
    """Decides for each tunnel of a daemon. One trial serves all tunnels with the same build.

    `release`: the kernel's; `open_path` opens the path for trials.
    """

    def __init__(
        self,
        release: str = "",
        open_path: Callable[[], AbstractContextManager[TrialPath]] = ScratchPath,
    ) -> None:
        self._release = release or platform.release()
        self._open_path = open_path
        self._results: dict[tuple[Build, frozenset[CoalesceKind]], TrialResult] = {}
        self._log = structlog.get_logger("bridged.coalescing")

    def decide(self, tunnel: str, mode: CoalesceMode, build: Build, port: TapPort) -> Coalescing:
        """What to join on the way into this TAP. Logs each refusal. The first call takes 0.2 s."""
        possible = coalesce_kinds(build, port)
        if mode == "off" or not possible:
            return Coalescing(frozenset())
        if mode == "on":
            return Coalescing(possible)
        refused: dict[CoalesceKind, tuple[Cause, str]] = {}
        fault = find_udp_fault(self._release)
        if fault:
            refused |= dict.fromkeys(possible & _UDP, ("config", fault))
        result = self._result(build, possible.difference(refused))
        refused |= {kind: ("selftest", reason) for kind, reason in result.failed.items()}
        for kind, (cause, reason) in sorted(refused.items()):
            self._log.warning("coalescing_refused", tunnel=tunnel, frames=kind, cause=cause, detail=reason)
        return Coalescing(possible.difference(refused), refused)

    def _result(self, build: Build, kinds: frozenset[CoalesceKind]) -> TrialResult:
        result = self._results.get((build, kinds))
        if result is None:
            result = self._try(build, kinds)
            if not result.unavailable:  # what is missing now may be there for the next tunnel
                self._results[build, kinds] = result
        return result

    def _try(self, build: Build, kinds: frozenset[CoalesceKind]) -> TrialResult:
        if not kinds:
            return TrialResult()
        try:
            with self._open_path() as path:
                result = try_super_frames(kinds, partial(coalesce, build), path)
        except (BridgedError, OSError) as error:
            result = TrialResult(unavailable=str(error))
        if result.unavailable:
            self._log.info("coalescing_not_tried", detail=result.unavailable)
        else:
            self._log.info(
                "coalescing_tried",
                frames=sorted(kinds),
                failed=sorted(result.failed),
                milliseconds=round(result.seconds * 1000, 1),
            )
        return result
