"""Documents and the texts that users read keep to the words of CONTRIBUTING.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from bridged.cli.main import app
from bridged.configuration import schema_json
from bridged.telemetry.metrics_table import METRICS
from tests.unit.documents.documents import ROOT, pages, tracked

HABITS = {
    r"octets?": "byte",
    r"anew": "again",
    r"starts? anew": "restart",
    r"(give|given|gives|take|taken|takes) back": "undo, restore",
    r"go(es)? round": "loop",
    r"amiss": "wrong",
    r"the way to": "route, path",
    r"who does not": "peers without",
}
QUOTES_THEM = (ROOT / "CONTRIBUTING.md",)
FIELD = re.compile(r"<[^>]*>|`[^`]*`")


def habits_in(text: str) -> list[str]:
    """Words that we do not use, each with the one that we do; code in `backticks` does not count."""
    plain = FIELD.sub("", text)
    return [
        f"{match.group()!r}: write {better}"
        for pattern, better in HABITS.items()
        for match in re.finditer(rf"\b{pattern}\b", plain, re.IGNORECASE)
    ]


def ours() -> list[Path]:
    """Documents for readers; those below tests/ describe files of other programs."""
    return [page for page in pages() if page not in QUOTES_THEM and "tests" not in page.parts]


@pytest.mark.parametrize("page", ours(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_none_of_the_words_that_we_gave_up(page: Path) -> None:
    assert habits_in(page.read_text(encoding="utf-8")) == []


def test_a_word_that_we_gave_up_is_found() -> None:
    assert habits_in("It starts anew with 5 octets; `octets` is a name.")


def test_names_in_the_word_list_are_names_of_the_code() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Words")[2]
    names = set(re.findall(r"^\|[^|]*`([A-Z]\w+)`", page, re.MULTILINE))
    code = "\n".join(file.read_text(encoding="utf-8") for file in tracked(".py", ".rs"))
    assert (
        names
        and [name for name in sorted(names) if not re.search(rf"(class|struct|trait) {name}\b", code)] == []
    )


def descriptions(schema: object) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["description"]] if isinstance(schema.get("description"), str) else []
        return own + [text for value in schema.values() for text in descriptions(value)]
    if isinstance(schema, list):
        return [text for value in schema for text in descriptions(value)]
    return []


def test_keys_metrics_and_help_have_none_either() -> None:
    texts = descriptions(schema_json()) + [row.help for row in METRICS]
    todo = [typer.main.get_command(app)]
    while todo:
        command = todo.pop()
        texts.append(command.help or "")
        texts += [getattr(parameter, "help", None) or "" for parameter in command.params]
        todo += list(getattr(command, "commands", {}).values())
    assert len(texts) > 200
    assert [(text, habits_in(text)) for text in texts if habits_in(text)] == []
