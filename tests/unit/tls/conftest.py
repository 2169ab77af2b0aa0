"""The certificates are made once per run."""

from __future__ import annotations

import pytest

from tests.unit.tls.tls_lab import Lab, make_lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    return make_lab()
