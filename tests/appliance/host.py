"""A Debian system in which systemd is process 1, and commands in it."""

from __future__ import annotations

from abc import ABC, abstractmethod

COMMAND_SECONDS = 300.0


class HostError(Exception):
    """The system did not do what was asked; the text says what, and what it printed."""


class Host(ABC):
    """A virtual machine or a container; what the test gave it is in /run/lab."""

    install: str
    """Installs or upgrades to the package file that follows."""
    remove: str
    purge: str
    unit_settings: str = ""
    """What docs/systemd.md has for a machine that is slow, as this one may be."""

    @abstractmethod
    def call(self, script: str, *, seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Exit status of the shell's `script`, and what it prints, errors included.

        Raises:
            HostError: the system does not answer.
        """

    def run(self, script: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """What the shell's `script` prints, errors included.

        Raises:
            HostError: it failed, or took longer.
        """
        status, output = self.call(script, seconds=seconds)
        if status != 0:
            raise HostError(f"{script}\nexit status {status}\n{output}")
        return output
