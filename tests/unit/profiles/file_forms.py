"""The forms in which people keep one and the same file: each must be read as the plain text is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.unit.profiles.real_configurations import Row

Form = Callable[[Row, str], bytes]


def _each_line(change: Callable[[str], str]) -> Form:
    """Change each line, except those of blocks."""

    def form(row: Row, text: str) -> bytes:
        lines, inside = [], False
        for line in text.splitlines():
            inside = inside and not line.startswith("</")
            lines.append(line if inside or line.startswith("<") else change(line))
            inside = inside or (line.startswith("<") and not line.startswith("</"))
        return ("\n".join(lines) + "\n").encode()

    return form


def _uci(row: Row, text: str) -> bytes:
    """As OpenWrt has it. Options without a value are flags."""
    lines = [f"config openvpn '{row.name}'", "\toption enabled '1'"]
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        kind = "list" if name in ("push", "remote") else "option"
        value = value.strip("\"'")
        lines.append(f"\t{kind} {name.replace('-', '_')} '{value or 1}'")
    return ("\n".join(lines) + "\n").encode()


def _sample(row: Row) -> str:
    """Lines of OpenVPN's sample that the file's own ones, further down, replace."""
    names = {entry.split()[0] for entry in row.entries}
    lines = {"dev": "tun", "port": "500", "proto": "tcp", "keepalive": "1 2", "mssfix": "0"}
    kept = {name: value for name, value in lines.items() if name in names}
    return "".join(f"{name} {value}\n" for name, value in kept.items())


FORMS: Mapping[str, Form] = {
    "crlf": lambda row, text: text.replace("\n", "\r\n").encode(),
    "utf-8 with a mark": lambda row, text: text.encode("utf-8-sig"),
    "utf-16": lambda row, text: text.encode("utf-16"),
    "latin-1 in comments": lambda row, text: ("# Büro\n" + text).encode("latin-1"),
    "no line feed at the end": lambda row, text: text.rstrip("\n").encode(),
    "nuls at the end": lambda row, text: text.encode() + b"\0\0\0",
    "comments at the end": _each_line(lambda line: f'{line}   ## as the how-to has it; "quoted'),
    "sample's half kept": _each_line(lambda line: f"{line} ;{line}"),
    "indented": _each_line(lambda line: f"  \t{line}  "),
    "command line": _each_line(lambda line: f"--{line}"),
    "pasted twice": lambda row, text: (text + "\n# again\n" + text).encode(),
    "behind the sample": lambda row, text: (_sample(row) + text).encode(),
}
UCI: Form = _uci
