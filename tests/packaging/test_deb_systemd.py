"""The package under a real systemd, at this machine's speed: two sites, restart, upgrade, reloads.

`make test-appliance` does the same, and reboot, remove and purge, in virtual machines with Debian 12 and 13.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.appliance.container import Container
from tests.appliance.life import FILES, RELOADED_KILOBYTES_MAX, Life
from tests.appliance.packages import with_previous
from tests.lab.bounds import at_most
from tests.packaging.conftest import Package

pytestmark = pytest.mark.root
RELOADS = 20
SEED = 5


@pytest.fixture(scope="module")
def life(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    packages = with_previous(package.file, tmp_path_factory.mktemp("packages"))
    with Container((packages.previous, packages.new, *FILES)) as container:
        life = Life(container, RELOADS, SEED)
        life.prepare()
        life.install()
        life.configure()
        yield life


@pytest.mark.measures
def test_a_restart_by_systemd_keeps_the_links_and_loses_less_than_300_ms(life: Life) -> None:
    at_most(life.restart().seconds, 0.3, "pings lost by a restart")


@pytest.mark.measures
def test_an_upgrade_keeps_links_configuration_and_state_and_loses_less_than_a_second(life: Life) -> None:
    at_most(life.upgrade().seconds, 1.0, "pings lost by an upgrade")


def test_an_upgrade_leaves_a_service_alone_whose_configuration_it_refuses(life: Life) -> None:
    life.refuse()


def test_reloads_of_valid_and_invalid_edits_end_as_each_deserves_and_leave_no_memory_behind(
    life: Life,
) -> None:
    assert f"{RELOADS} reloads" in life.reload()
    life.memory(RELOADED_KILOBYTES_MAX)


def test_an_installation_after_a_removal_starts_the_daemon_again(life: Life) -> None:
    life.install_again()
