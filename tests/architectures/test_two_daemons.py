"""Two daemons of other architectures, each with a real adapter and bridge, and frames from LAN to LAN."""

from __future__ import annotations

import pytest

from tests.architectures.machines import MACHINES, ready
from tests.architectures.two_lans import join_two_lans

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("server_machine", "client_machine"), [("arm64", "armhf"), ("armhf", "arm64")])
def test_two_lans_are_joined_by_daemons_of_different_architectures(
    server_machine: str, client_machine: str
) -> None:
    programs = [str(ready(MACHINES[name]).bridged) for name in (server_machine, client_machine)]
    join_two_lans(*programs, dataplane="portable")
