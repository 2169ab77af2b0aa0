"""How many of the configurations that people use can be imported, and why the others cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.configuration.load import parse
from bridged.profiles import Trust, read_file, render_yaml, to_configuration
from bridged.profiles.not_yet import NOT_YET
from tests.unit.profiles.real_configurations import rows

ROWS = rows()
TRUST = Trust(
    certificate="/x/own.crt", key="/x/own.key", ca="/x/ca.crt", crl="/x/crl.pem", wrap_key="/x/ta.key"
)
INCOMPLETE = {"server-20"}
"""It names no certificates: the how-to shows a part of the file."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_is_imported_or_needs_an_ability_that_is_missing_or_is_not_safe(row):
    reading = read_file(row.text({}), row.name)
    if "<" not in row.text({}):
        lines = [outcome.line for outcome in reading.report if outcome.line]
        assert lines == list(range(1, 1 + row.text({}).count("\n")))
    if reading.errors:
        assert reading.needs <= NOT_YET.keys()
        assert reading.needs or row.secures_nothing or row.name in INCOMPLETE
        assert all(error.reason for error in reading.errors)
        return
    data = to_configuration(reading.profile, TRUST, tunnel_name="t", bridge="br0", ports=["eth1"])
    tunnel = parse(render_yaml(data), Path("/x/t.yaml")).tunnels["t"]
    assert tunnel.role == row.role
    if row.role == "server":
        assert tunnel.forward_between_peers == ("client-to-client" in row.entries)
        assert tunnel.duplicate_names == ("duplicate-cn" in row.entries)


@pytest.mark.parametrize(("role", "least"), [("client", 0.95), ("server", 0.90), ("link", 0.0)])
def test_nothing_but_missing_abilities_stands_in_the_way_of_nearly_all(role, least):
    readings = [(row, read_file(row.text({}), row.name)) for row in ROWS if row.role == role]
    counted = [reading for row, reading in readings if not row.secures_nothing]
    hopeless = [reading for reading in counted if reading.errors and not reading.needs]
    assert 1 - len(hopeless) / len(counted) >= least
    imported = sum(not reading.errors for reading in counted)
    print(f"{role}: {imported} of {len(counted)} imported, {len(hopeless)} for no ability to come")


def test_what_has_no_security_stays_refused():
    unsafe = [row for row in ROWS if row.secures_nothing]
    assert unsafe and all(read_file(row.text({}), row.name).errors for row in unsafe)
