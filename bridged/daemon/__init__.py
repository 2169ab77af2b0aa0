"""The composition root, and the service that it is to a host."""

from bridged.daemon.daemon import Daemon
from bridged.daemon.service import run

__all__ = ["Daemon", "run"]
