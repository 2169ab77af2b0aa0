"""The daemon as a service: a process with a configuration, a manager that started it, and an exit status."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from bridged.configuration import load
from bridged.daemon.daemon import Daemon
from bridged.runtime.service.descriptors import DescriptorStore, take_inherited
from bridged.runtime.service.manager import ServiceManager
from bridged.runtime.service.privileges import protect_memory, settle_privileges
from bridged.runtime.site.reloads import log_warnings
from bridged.telemetry.logs import configure_logs


def run(configuration_path: Path, confirm_seconds: float | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit status.

    `confirm_seconds`: undo all network changes, and return 1, unless confirmed in that time.

    Raises:
        ConfigurationError: the configuration cannot be used here; nothing was changed.
        BridgedError: the start failed; what was begun was undone.
    """
    manager = ServiceManager.of(os.environ)
    store = DescriptorStore(manager, take_inherited(os.environ))
    configuration = load(configuration_path)
    configure_logs(configuration.log)
    log_warnings(configuration)
    protect_memory()
    settle_privileges(configuration, configuration_path)
    daemon = Daemon(configuration, configuration_path, confirm_seconds, manager, store)
    status = asyncio.run(daemon.run())
    if daemon.hands_over:
        # The successor waits for our end, and nothing is left to be tidied up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
