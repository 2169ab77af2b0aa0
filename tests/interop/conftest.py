"""What several files here need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import prepared
from tests.lab.pki import Authority


@pytest.fixture(scope="module", autouse=True)
def _prepared_daemons() -> Iterator[None]:
    """What these tests look at begins when the daemon has started."""
    with prepared.offered():
        yield


@pytest.fixture(scope="module")
def authority() -> Authority:
    """A CA of the file's own."""
    return Authority()
