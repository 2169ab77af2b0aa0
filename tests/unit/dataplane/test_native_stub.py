"""The stub of the native module names the fields of the contract: what it returns becomes those classes."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import bridged
from bridged.dataplane.contract import DataplaneSnapshot, PeerCounters, PeerSnapshot

STUB = ast.parse((Path(bridged.__file__).parent / "_native.pyi").read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize(
    ("stub", "contract"),
    [("_Snapshot", DataplaneSnapshot), ("_PeerSnapshot", PeerSnapshot), ("_PeerCounters", PeerCounters)],
)
def test_the_stub_has_the_fields_of_the_contract(stub: str, contract: type) -> None:
    told = [ast.unparse(item.target) for item in CLASSES[stub].body if isinstance(item, ast.AnnAssign)]
    assert sorted(told) == sorted(item.name for item in fields(contract))
