"""What every test session needs: the lab on the path, and a loud refusal where a capability is missing."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest

os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

from bridged.dataplane import native
from bridged.supervision import SUPERVISOR
from tests import measuring, ordering, quiet_machine
from tests.interop_report import InteropReport
from tests.lab import bridge_filter, missing_capabilities

PORTABLE_ONLY = os.environ.get("BRIDGED_PORTABLE_ONLY") == "1"
"""Set by whoever wants to test without Rust; without it a missing native data plane is a failure."""


# The virtual machine of tests/vm has no Hypothesis: nothing there draws examples.
if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    # A slow machine, or a busy one, is no counterexample.
    hypothesis.settings.register_profile("any machine", deadline=None)
    hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _nothing_is_undone() -> None:
    """The process keeps the records of background work: a test does not see what failed in the one before."""
    for item in SUPERVISOR.undone():
        SUPERVISOR.forget(item.duty, item.subject)


def pytest_configure(config: pytest.Config) -> None:
    # Where the run was started in the background of a shell, programs would inherit that Ctrl-C is ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Debian's programs must speak English: the lab reads what they print.
    os.environ["LC_ALL"] = "C"
    config.pluginmanager.register(measuring)
    config.pluginmanager.register(ordering)
    # In the process that the others belong to: it ends last.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(InteropReport())
        if bridge_filter.load():
            config.add_cleanup(bridge_filter.unload)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Thousands of tests stay: garbage collection need not traverse them, neither now nor while they run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_report_header() -> str:
    if PORTABLE_ONLY:
        return "data planes: portable; native NOT TESTED (BRIDGED_PORTABLE_ONLY=1)"
    return (
        f"data planes: portable, native {f'MISSING: {native.unavailable()}' if native.unavailable() else ''}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about native where that is not to be tested; the header says so."""
    if not PORTABLE_ONLY:
        return
    left_out = [item for item in items if _is_about_native(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_about_native(item: pytest.Item) -> bool:
    return bool(item.get_closest_marker("native")) or "native_module" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """The mark `alone` gives a test the machine for itself; waiting for it is no part of the test's time."""
    if measuring.is_measurement(item):
        return (yield)
    with quiet_machine.place(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    nodes = getattr(session.config.pluginmanager.get_plugin("dsession"), "nodemanager", None)
    if nodes is not None:
        quiet_machine.remove_files(nodes.testrunuid)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("native") and native.unavailable():
        pytest.fail(f"{native.unavailable()}; or test portable only: BRIDGED_PORTABLE_ONLY=1", pytrace=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop before the first test where tests marked `root` were collected and cannot run here."""
    privileged = [item.nodeid for item in session.items if item.get_closest_marker("root")]
    if not privileged or session.config.option.collectonly:
        return
    missing = missing_capabilities()
    if not bridge_filter.is_loaded():
        missing.append("br_netfilter is not in this kernel and cannot be loaded: modprobe br_netfilter")
    if missing:
        reasons = "\n".join(f"  - {reason}" for reason in missing)
        pytest.exit(
            f"{len(privileged)} of {len(session.items)} tests need what this machine lacks:\n{reasons}\n"
            "Nothing was run, because a skipped test proves nothing. "
            'To run only the others: pytest -m "not root".',
            returncode=3,
        )
