"""Writes the Rust files that follow the tables of bridged/catalogue. `make generate` runs this.

A test finds files that are behind, and rustfmt (`make lint`) leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from bridged.catalogue.counters import COUNTS, DROP_REASONS, CountSource
from bridged.catalogue.figures import BATCHES, OFFLOADS, QUEUES, Figure
from bridged.catalogue.settings import COALESCE_KINDS, Row, rows

_HEAD: Final = "//! Generated from bridged/catalogue/{table}.py by scripts/native_tables.py; edit that.\n"

_FROM_PYTHON: Final[Mapping[str, tuple[str, str]]] = {
    "CoalesceRules": ("BTreeSet<String>", "coalesce_rules(py, &self.{name})?"),
    "Priority": ("String", "priority(py, &self.{name})?"),
}
"""Rust type -> type that PyO3 reads, and how one is made of the other; all others are taken as they are."""

_WIDTH: Final = 120
"""Of lines, as native/rustfmt.toml has it."""
_LARGEST: Final = {"u16": 2**16 - 1, "u32": 2**32 - 1}


def settings_of_worker() -> str:
    """native/worker/src/settings.rs."""
    return "".join(
        (
            _HEAD.format(table="settings"),
            "\nuse std::fmt::Display;\nuse std::net::SocketAddr;\nuse std::ops::RangeInclusive;\n",
            "\nuse bridged_core::coalesce::CoalesceRules;\nuse bridged_core::priority::Priority;\n",
            "\nuse crate::contract::TapPort;\nuse crate::error::Error;\n",
            "\n/// What is fixed for the life of one data plane (one tunnel).\n",
            "#[derive(Debug, Clone)]\npub struct Settings {\n",
            "    /// Name of the tunnel; only for messages.\n    pub tunnel: String,\n",
            "    /// The adapter.\n    pub tap: TapPort,\n",
            "    /// Where to listen; None: an unbound socket, as a client has.\n",
            "    pub bind: Option<SocketAddr>,\n",
            *(f"{_doc(row)}    pub {row.name}: {row.setting.rust},\n" for row in rows().values()),
            "}\n\nimpl Settings {\n",
            "    /// The defaults, for a tunnel on this adapter.\n",
            "    pub fn new(tunnel: &str, tap: TapPort, bind: Option<SocketAddr>) -> Settings {\n",
            "        Settings {\n            tunnel: tunnel.to_owned(),\n",
            "            tap,\n            bind,\n",
            *(f"            {row.name}: {_default(row)},\n" for row in rows().values()),
            "        }\n    }\n",
            "\n    /// Whether every value is in range.\n    ///\n    /// # Errors\n",
            "    /// [`Error::BadSetting`]: the first one that is not.\n",
            "    pub fn check(&self) -> Result<(), Error> {\n",
            *_checks(),
            "        Ok(())\n    }\n}\n",
            _WITHIN,
        )
    )


_WITHIN: Final = """
fn within<T: PartialOrd + Display>(name: &str, value: T, limits: RangeInclusive<T>) -> Result<(), Error> {
    if limits.contains(&value) {
        return Ok(());
    }
    Err(Error::BadSetting(format!("{name}: {value} is not in {}..{}", limits.start(), limits.end())))
}
"""


def settings_from_python() -> str:
    """native/py/src/settings.rs."""
    return "".join(
        (
            _HEAD.format(table="settings"),
            "\nuse std::collections::BTreeSet;\n",
            "\nuse bridged_worker as worker;\nuse pyo3::prelude::*;\n",
            "\nuse crate::from_python::{coalesce_rules, priority, Endpoint, TapPort};\n",
            "\n/// `bridged.dataplane.contract.DataplaneSettings`.\n#[derive(FromPyObject)]\n",
            "pub struct DataplaneSettings {\n",
            "    tunnel: String,\n    tap: TapPort,\n    bind: Option<Endpoint>,\n",
            *(f"    {row.name}: {_read_as(row)},\n" for row in rows().values()),
            "}\n\nimpl DataplaneSettings {\n",
            "    pub fn parse(self, py: Python<'_>) -> PyResult<worker::Settings> {\n",
            "        Ok(worker::Settings {\n            tunnel: self.tunnel,\n",
            "            tap: self.tap.into(),\n",
            "            bind: self.bind.map(|bind| bind.parse(py)).transpose()?.map(|bind| bind.address),\n",
            *(f"            {row.name}: {_made_from(row)},\n" for row in rows().values()),
            "        })\n    }\n}\n",
        )
    )


def names_of_counters() -> str:
    """native/worker/src/control/names.rs."""
    native: CountSource = "native"
    reasons = {reason.name: reason.meaning for reason in DROP_REASONS if native in reason.sources}
    counts = [count for count in COUNTS if native in count.sources and count.by_threads]
    return "".join(
        (
            _HEAD.format(table="counters"),
            *_enum("Reason", "Why a frame or packet was dropped.", reasons),
            *_lookup("Reason", "reason", reasons),
            *_enum("Count", "What threads count where frames pass.", {c.name: c.meaning for c in counts}),
            "\nimpl Count {\n    /// The metric that it belongs to, without prefix and suffix.\n",
            "    pub fn family(self) -> &'static str {\n        match self {\n",
            *(f'            Count::{camel(c.name)} => "{c.family}",\n' for c in counts),
            "        }\n    }\n}\n",
            *_enum("OffloadName", "What kernel or card may do for us.", _native_figures(OFFLOADS)),
            *_enum("QueueName", "A queue whose depth is shown.", _native_figures(QUEUES)),
            *_enum("BatchName", "What the sizes of batches are counted of.", _native_figures(BATCHES)),
        )
    )


def _native_figures(figures: Iterable[Figure]) -> dict[str, str]:
    return {figure.name: figure.meaning for figure in figures if "native" in figure.sources}


def files() -> dict[str, str]:
    """Content of each generated file, by its path in the project."""
    return {
        "native/worker/src/settings.rs": settings_of_worker(),
        "native/worker/src/control/names.rs": names_of_counters(),
        "native/py/src/settings.rs": settings_from_python(),
    }


def _enum(name: str, meaning: str, values: Mapping[str, str]) -> Iterator[str]:
    yield f"\n/// {meaning}\n#[derive(Debug, Clone, Copy, PartialEq, Eq)]\n#[repr(u8)]\npub enum {name} {{\n"
    for value, text in values.items():
        yield f"    /// {text}\n    {camel(value)},\n"
    yield f"}}\n\nimpl {name} {{\n    /// All of them, by index.\n"
    yield from _all(name, values)
    yield "\n    /// Its name in metrics.\n    pub fn name(self) -> &'static str {\n        match self {\n"
    yield from (f'            {name}::{camel(value)} => "{value}",\n' for value in values)
    yield "        }\n    }\n}\n"


def _all(name: str, values: Iterable[str]) -> Iterator[str]:
    items = [f"{name}::{camel(value)}" for value in values]
    head, inside = f"    pub const ALL: &'static [{name}] =", f"&[{', '.join(items)}];"
    if len(head) + 1 + len(inside) <= _WIDTH:
        yield f"{head} {inside}\n"
    elif len(inside) + 8 <= _WIDTH:
        yield f"{head}\n        {inside}\n"
    else:
        yield f"{head} &[\n"
        yield from (f"        {item},\n" for item in items)
        yield "    ];\n"


def _lookup(name: str, noun: str, values: Iterable[str]) -> Iterator[str]:
    yield f"\nimpl {name} {{\n    /// The {noun} of this name, if there is one.\n"
    yield f"    pub fn named(name: &str) -> Option<{name}> {{\n        match name {{\n"
    yield from (f'            "{value}" => Some({name}::{camel(value)}),\n' for value in values)
    yield "            _ => None,\n        }\n    }\n}\n"


def _checks() -> Iterator[str]:
    for name, row in rows().items():
        setting = row.setting
        if setting.least is None and setting.most is None:
            continue
        kind = setting.rust
        lowest = setting.least if setting.least is not None else 0
        if (lowest, setting.most) in ((0, None), (0, _LARGEST.get(kind))) and kind != "f64":
            continue
        most = _number(setting.most, kind) if setting.most is not None else _unlimited(kind)
        check = f'within("{name}", self.{name}, {_number(lowest, kind)}..={most})?;\n'
        if setting.or_zero:
            yield f"        if self.{name} != 0 {{\n            {check}        }}\n"
        else:
            yield f"        {check}"


def _unlimited(kind: str) -> str:
    return "f64::INFINITY" if kind == "f64" else f"{kind}::MAX"


def _default(row: Row) -> str:
    special: dict[str, Callable[[Any], str]] = {
        "CoalesceRules": lambda kinds: (
            "CoalesceRules { "
            + "".join(f"{kind}: {str(kind in kinds).lower()}, " for kind in sorted(COALESCE_KINDS))
            + "tagged: false }"
        ),
        "Priority": lambda word: f"Priority::{camel(word)}",
        "bool": lambda value: str(value).lower(),
    }
    kind = row.setting.rust
    return special[kind](row.default) if kind in special else _number(row.default, kind)


def _number(value: float, kind: str) -> str:
    return str(float(value)) if kind == "f64" else f"{int(value):_}" if value >= 100_000 else str(int(value))


def _read_as(row: Row) -> str:
    return _FROM_PYTHON.get(row.setting.rust, (row.setting.rust, ""))[0]


def _made_from(row: Row) -> str:
    return _FROM_PYTHON.get(row.setting.rust, ("", "self.{name}"))[1].format(name=row.name)


def _doc(row: Row) -> str:
    unit = f" In {row.setting.unit}." if row.setting.unit else ""
    lines = wrap(f"{row.setting.meaning}.{unit}", _WIDTH - 8)
    return "".join(f"    /// {line}\n" for line in lines)


def camel(name: str) -> str:
    """`tap_full` -> `TapFull`."""
    return "".join(part.capitalize() for part in name.split("_"))


def main() -> None:
    """Write all files below the project's folder."""
    for name, content in files().items():
        Path(name).write_text(content, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
