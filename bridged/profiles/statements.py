"""Splits the text of an OpenVPN configuration file into statements: words, inline blocks, lines.

Source: docs/protocol/data.md#7 (first paragraph).
Pure: text in, values out. Everything has a limit; what exceeds it is refused, with its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.errors import ConfigurationError

TEXT_CHARACTERS_MAX: Final = 1 << 20
LINE_CHARACTERS_MAX: Final = 4096
STATEMENTS_MAX: Final = 10_000
WORDS_MAX: Final = 16

_BLANKS: Final = " \t\v\f\r"
_PEM_MARK: Final = "-----BEGIN"


@dataclass(frozen=True, slots=True)
class Statement:
    """One directive.

    `words`: its name and its arguments. `line`: where it begins, from 1. `inline`: the text between `<name>`
    and `</name>` if it is an inline block, else None.
    """

    words: tuple[str, ...]
    line: int
    inline: str | None = None

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.words[1:]


def split_statements(text: str, source: str, first_line: int = 1) -> list[Statement]:
    """All statements of a file, or of a `<connection>` block that begins at `first_line`.

    Raises:
        ConfigurationError: open quotes, an open inline block, PEM outside of a block, or too much.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise _wrong(f"larger than {TEXT_CHARACTERS_MAX} characters; is it an OpenVPN profile?", source)
    lines = text.removeprefix("\ufeff").split("\n")
    statements: list[Statement] = []
    index = 0
    while index < len(lines):
        number = first_line + index
        words = split_words(lines[index], source, number)
        index += 1
        if not words:
            continue
        if words[0].startswith(_PEM_MARK):
            # The next lines may be a private key: repeat nothing of them.
            reason = "a certificate or key outside of a block: write `<ca>` above it and `</ca>` below it"
            raise _wrong(f"{reason} (or `cert`, `key`, `tls-auth`, `tls-crypt`)", source, number)
        if len(statements) >= STATEMENTS_MAX:
            raise _wrong(f"more than {STATEMENTS_MAX} directives", source, number)
        tag = _inline_tag(words)
        if tag is None:
            statements.append(Statement((bare(words[0]), *words[1:]), number))
            continue
        end = _closing_line(lines, index, tag)
        if end is None:
            raise _wrong(f"no line `</{tag}>` closes `<{tag}>`; the file is cut off", source, number)
        content = "\n".join(_before_nul(line).rstrip("\r") for line in lines[index:end])
        statements.append(Statement((tag,), number, content + "\n"))
        index = end + 1
    return statements


def split_words(line: str, source: str, number: int) -> tuple[str, ...]:
    """The words of one line.

    A word that begins with `#` or `;` starts a comment. Backslash escapes work in `"…"` but not in `'…'`.
    Outside quotes a backslash keeps the next character unchanged. A NUL ends the line.

    Raises:
        ConfigurationError: an open quote, a backslash at the end, or too much.
    """
    if len(line) > LINE_CHARACTERS_MAX:
        raise _wrong(f"a line of more than {LINE_CHARACTERS_MAX} characters", source, number)
    line = _before_nul(line)
    words: list[str] = []
    position = 0
    while position < len(line):
        char = line[position]
        if char in _BLANKS:
            position += 1
            continue
        if char in "#;":
            break
        word, position = _read_word(line, position, source, number)
        words.append(word)
        if len(words) > WORDS_MAX:
            raise _wrong(f"more than {WORDS_MAX} words in a line", source, number)
    return tuple(words)


def _read_word(line: str, position: int, source: str, number: int) -> tuple[str, int]:
    """The word that begins at `position`, and the position after it."""
    if line[position] == "'":
        end = line.find("'", position + 1)
        if end < 0:
            raise _wrong("a quote ' is not closed", source, number)
        return line[position + 1 : end], end + 1
    quoted = line[position] == '"'
    position += quoted
    chars: list[str] = []
    while position < len(line):
        char = line[position]
        if char == "\\":
            if position + 1 >= len(line) or line[position + 1 :] == "\r":
                raise _wrong("a backslash at the end of the line", source, number)
            chars.append(line[position + 1])
            position += 2
            continue
        if quoted and char == '"':
            return "".join(chars), position + 1
        if not quoted and char in _BLANKS:
            return "".join(chars), position
        chars.append(char)
        position += 1
    if quoted:
        raise _wrong('a quote " is not closed', source, number)
    return "".join(chars), position


def _inline_tag(words: tuple[str, ...]) -> str | None:
    word = words[0]
    is_tag = len(words) == 1 and len(word) > 2 and word[0] == "<" and word[-1] == ">" and word[1] != "/"
    return word[1:-1] if is_tag else None


def _closing_line(lines: list[str], start: int, tag: str) -> int | None:
    closing = f"</{tag}>"
    for index in range(start, len(lines)):
        if lines[index].strip(_BLANKS).startswith(closing):
            return index
    return None


def _before_nul(line: str) -> str:
    return line.partition("\0")[0]


def bare(word: str) -> str:
    """A directive's name without the `--` of a command line."""
    return word[2:] if len(word) > 2 and word.startswith("--") else word


def _wrong(reason: str, source: str, line: int | None = None) -> ConfigurationError:
    return ConfigurationError(reason, file=source, line=line, code="profile")
