"""The architectures and Pythons that the package is made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PYTHONS: Final = ("3.11", "3.13")
"""Debian 12 and 13; one package has the compiled modules of both (decision 62)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A Debian architecture. `multiarch` is in the names of compiled modules, `wheel` in those of wheels."""

    name: str
    multiarch: str
    wheel: str
    glibc: tuple[str, ...]
    """Of manylinux wheels, newest first: none newer than Debian 12's 2.36."""
    borrowed: tuple[str, ...] = ()
    """Distributions without a wheel for it, whose Python files come from the wheel of another one."""

    @property
    def platforms(self) -> tuple[str, ...]:
        old = (f"manylinux2014_{self.wheel}",) if self.glibc[-1] == "2_17" else ()
        return (*(f"manylinux_{version}_{self.wheel}" for version in self.glibc), *old)

    @property
    def strip(self) -> str:
        return f"{self.multiarch}-strip"


TARGETS: Final = {
    target.name: target
    for target in (
        Target("amd64", "x86_64-linux-gnu", "x86_64", ("2_34", "2_28", "2_17")),
        Target("arm64", "aarch64-linux-gnu", "aarch64", ("2_34", "2_28", "2_17")),
        Target("armhf", "arm-linux-gnueabihf", "armv7l", ("2_34", "2_31", "2_17"), ("cffi", "pyyaml")),
    )
}
