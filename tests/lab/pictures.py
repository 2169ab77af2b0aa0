"""The pictures of the guides: `python -m tests.lab.pictures` writes docs/guides/pictures anew.

Two LANs are drawn by rule. A terminal shows what `bridged status` printed at an office that was joined as the
page says, in namespaces; numbers in it differ from run to run.
"""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / "docs" / "guides" / "pictures"
COLUMN, LINE, MARGIN = 8.0, 18, 16
_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
    'aria-label="{2}">'
)
_FONT: Final = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13"'
_MONO: Final = 'font-family="DejaVu Sans Mono, Consolas, monospace" font-size="13"'
_VOLATILE: Final = re.compile(
    r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b|TLSv1.3, \w+|offloads [\w, ]+? (?=peers)"
    r"|[\d.:]+(?: [kKMGim]?i?[Bsmh]\b)?"
)


def terminal(command: str, output: str) -> str:
    """A terminal in which `command` printed `output`, as SVG."""
    lines = [f"$ {command}", *output.rstrip("\n").splitlines()]
    width = round(max(map(len, lines)) * COLUMN + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    parts = [_HEAD.format(width, height, escape(f"what {command} prints"))]
    parts.append(f'<rect width="{width}" height="{height}" rx="6" fill="#16202b"/>')
    parts.append(f'<g {_MONO} fill="#dce6ee" xml:space="preserve">')
    for number, line in enumerate(lines):
        colour = ' fill="#8fd19e"' if number == 0 else ""
        length = f' textLength="{round(len(line) * COLUMN)}"' if line else ""
        y = MARGIN + number * LINE + 13
        parts.append(f'<text x="{MARGIN}" y="{y}"{length}{colour}>{escape(line)}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def printed(picture: str) -> str:
    """What a terminal shows, without the command."""
    lines = [unescape(line) for line in re.findall(r"<text [^>]*>([^<]*)</text>", picture)]
    return "\n".join(lines[1:])


def is_of_this_kind(shown: str, said: str) -> bool:
    """Whether `said` has all words of `shown` from the first bridge on, in that order, and perhaps more.

    What host and moment decide does not count: numbers, addresses, offloads, key groups.
    """
    rest = iter(_words(said))
    return all(word in rest for word in _words(shown))


def _words(status: str) -> list[str]:
    text = " ".join(status[max(0, status.find("bridge br")) :].split())
    return _VOLATILE.sub(" ", text).replace(",", " ").split()


def two_lans() -> str:
    """Two LANs, each with machines and a gateway, joined by a tunnel."""
    parts = [
        _HEAD.format(760, 250, "two LANs joined by bridged"),
        '<rect width="760" height="250" fill="#fff"/>',
    ]
    parts.append(f'<g {_FONT} fill="#1d2b36" text-anchor="middle">')
    for name, left, machines in (("office A", 20, ("PC", "NAS")), ("office B", 500, ("PC", "TV"))):
        parts += _lan(name, left, machines)
    parts.append('<path d="M240 168 H520" stroke="#1c7c54" stroke-width="6" stroke-dasharray="10 4"/>')
    parts.append('<text x="380" y="156">encrypted UDP</text><text x="380" y="192">any network</text>')
    parts.append('<text x="380" y="236">one Ethernet: 192.0.2.0/24 on both sides</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _lan(name: str, left: int, machines: tuple[str, ...]) -> list[str]:
    middle = left + 120
    parts = [f'<text x="{middle}" y="22" font-weight="bold">{name}</text>']
    parts.append(f'<path d="M{left} 96 H{left + 240}" stroke="#4a6572" stroke-width="3"/>')
    for number, machine in enumerate(machines):
        x = left + 30 + number * 110
        parts.append(f'<rect x="{x}" y="36" width="70" height="34" rx="4" fill="#e3edf2" stroke="#4a6572"/>')
        parts.append(f'<text x="{x + 35}" y="58">{machine}</text>')
        parts.append(f'<path d="M{x + 35} 70 V96" stroke="#4a6572" stroke-width="2"/>')
    parts.append(f'<path d="M{middle} 96 V140" stroke="#4a6572" stroke-width="2"/>')
    parts.append(f'<text x="{middle + 24}" y="122" font-size="11">eth1</text>')
    parts.append(
        f'<rect x="{left + 20}" y="140" width="200" height="56" rx="4" fill="#d8efe3" stroke="#1c7c54"/>'
    )
    parts.append(f'<text x="{middle}" y="163">bridged</text>')
    parts.append(f'<text x="{middle}" y="183" font-size="11">br0: eth1 + tap</text>')
    return parts


def main() -> None:
    from tests.lab.offices import joined_offices

    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "two-lans.svg").write_text(two_lans(), encoding="utf-8")
    with joined_offices() as offices:
        said = offices.machines["office-b"].run("bridged status")
    (FOLDER / "status.svg").write_text(terminal("bridged status", said), encoding="utf-8")


if __name__ == "__main__":
    main()
