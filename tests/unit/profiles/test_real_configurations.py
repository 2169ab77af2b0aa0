"""How many of the configurations that people use can be imported, and why the others cannot."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridged.configuration.load import parse
from bridged.profiles import Profile, Trust, read_file, render_yaml, to_configuration
from bridged.profiles.not_yet import NOT_YET
from bridged.profiles.text import decode_text
from tests.unit.profiles.file_forms import FORMS, UCI
from tests.unit.profiles.real_configurations import rows

ROWS = rows()
COUNTED = [row for row in ROWS if not row.secures_nothing]
TRUST = Trust(
    certificate="/x/own.crt", key="/x/own.key", ca="/x/ca.crt", crl="/x/crl.pem", wrap_key="/x/ta.key"
)
SHARES = {"client": 0.95, "server": 0.90, "link": 0.85}
"""Of the configurations with any security that are imported, once no ability is missing."""
IMPORTED = {"client": 20, "server": 41, "link": 8}
"""At least so many are imported today. Who adds an ability raises these numbers."""


def missing(row):
    """The abilities that this configuration needs and this version lacks."""
    return row.abilities & NOT_YET.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_is_imported_unless_an_ability_is_missing_or_it_is_not_safe(row):
    reading = read_file(row.text({}), row.name)
    if "<" not in row.text({}):
        lines = [outcome.line for outcome in reading.report if outcome.line]
        assert lines == list(range(1, 1 + row.text({}).count("\n")))
    if row.secures_nothing:
        assert reading.errors
        return
    # Of a static key or a link nothing further is said.
    assert reading.needs == missing(row) or (row.role == "link" and reading.needs < missing(row))
    assert bool(reading.errors) == bool(missing(row)), reading.errors
    if reading.errors:
        assert all(error.reason for error in reading.errors)
        return
    data = to_configuration(reading.profile, TRUST, tunnel_name="t", bridge="br0", ports=["eth1"])
    tunnel = parse(render_yaml(data), Path("/x/t.yaml")).tunnels["t"]
    assert tunnel.point_to_point == (row.role == "link")
    assert row.role in ("link", tunnel.role)
    if row.role == "server":
        assert tunnel.forward_between_peers == ("client-to-client" in row.entries)
        assert tunnel.duplicate_names == ("duplicate-cn" in row.entries)


def test_so_many_are_imported():
    for role, share in SHARES.items():
        counted = [row for row in COUNTED if row.role == role]
        imported = [row for row in counted if not read_file(row.text({}), row.name).errors]
        for row in counted:
            if row not in imported:
                print(f"{row.name} needs {', '.join(sorted(missing(row)))}")
        print(f"{role}: {len(imported)} of {len(counted)} imported")
        assert len(imported) >= IMPORTED[role]
        # What is missing for a configuration counts for it even if the ability never comes.
        if not any(missing(row) for row in counted):
            assert len(imported) >= share * len(counted)


def test_what_has_no_security_stays_refused():
    unsafe = [row for row in ROWS if row.secures_nothing]
    assert unsafe and all(read_file(row.text({}), row.name).errors for row in unsafe)


def without_lines(value: Any) -> Any:
    """The same value, as if it stood in line 0."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inner = {field.name: getattr(value, field.name) for field in fields(value)}
    lines = {"line": 0} if "line" in inner else {}
    return replace(
        value, **{name: without_lines(one) for name, one in inner.items() if is_dataclass(one)}, **lines
    )


def said(text: str) -> tuple[Profile, list[tuple[str, str]]]:
    """What a file says, without the lines where it stands; and why it is refused."""
    reading = read_file(text, "file")
    found = replace(reading.profile, notices=[])
    for field in fields(found):
        setattr(found, field.name, without_lines(getattr(found, field.name)))
    return found, sorted({(error.key, error.reason) for error in reading.errors})


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_says_the_same(form):
    for row in COUNTED:
        text = row.text({})
        assert said(decode_text(FORMS[form](row, text), "file")) == said(text), row.name


def test_openwrt_s_form_of_a_file_says_the_same():
    for row in COUNTED:
        text = row.text({})
        if "<" not in text:
            assert said(UCI(row, text).decode()) == said(text), row.name
