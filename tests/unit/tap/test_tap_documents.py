"""The pages of the TAP library say what the code says, and its table of error codes is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import bridged_tap
from bridged_tap import ERROR_CODES

TAP = Path(bridged_tap.__file__).parents[2]
SOURCES = sorted((TAP / "src" / "bridged_tap").glob("*.py"))
CODE = re.compile(r'"((?:tap|mac|adapter)_[a-z_]+)"')


def test_the_api_page_is_that_of_the_code() -> None:
    command = [sys.executable, str(TAP / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"run: python tap/reference.py {done.stderr}"


def test_every_error_code_is_in_the_table_and_has_a_place_where_it_is_raised() -> None:
    raised: set[str] = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if path.name == "errors.py":
            text = text[text.index("class TapError") :]
        if path.name != "__init__.py":
            raised |= set(CODE.findall(text))
    # Made of the wanted kind: f"tap_not_a_{mode}".
    raised |= {"tap_not_a_tap", "tap_not_a_tun"}
    assert raised == set(ERROR_CODES)


def test_the_readme_names_only_what_there_is() -> None:
    text = (TAP / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        compile(block, "README.md", "exec")
        for names in re.findall(r"from bridged_tap import (.+)", block):
            assert set(names.split(", ")) <= set(bridged_tap.__all__)
    for code in re.findall(r"`((?:tap|mac|adapter)_[a-z]+)` *[|,]", text):
        assert code in ERROR_CODES


def test_nothing_but_python_is_imported() -> None:
    imported = {
        name.split(".")[0]
        for path in SOURCES
        for name in re.findall(
            r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert imported - {"bridged_tap"} <= sys.stdlib_module_names
