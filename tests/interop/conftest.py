"""What several files here need."""

from __future__ import annotations

import pytest

from tests.lab.pki import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    """A CA of the file's own."""
    return Authority()
