"""The manual pages bridged(1), bridged.yaml(5) and bridged(8), from the commands and the schema, in mdoc."""

from __future__ import annotations

import gzip
import inspect
import re
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bridged.configuration.examples import example_line
from bridged.configuration.keys import SchemaKey, all_keys
from scripts.deb.command_tree import Command, Option, command_tree

LINE_CHARACTERS: Final = 78
_DAEMON_PAGE: Final = Path(__file__).with_name("bridged.8.in")


def write(folder: Path, epoch: int) -> None:
    """Write all pages, compressed, below `folder`; `epoch` is their date."""
    for name, text in pages(epoch).items():
        path = folder / f"man{name[-1]}" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def pages(epoch: int) -> dict[str, str]:
    """File name -> mdoc text."""
    moment = datetime.fromtimestamp(epoch, UTC)
    date = f"{moment:%B} {moment.day}, {moment.year}"
    return {
        "bridged.1": _page(date, "1", "bridged", "join remote LANs at layer 2", _commands()),
        "bridged.yaml.5": _page(date, "5", "bridged.yaml", "configuration of bridged", _configuration()),
        "bridged.8": _page(
            date,
            "8",
            "bridged",
            "Ethernet bridging daemon",
            iter([_DAEMON_PAGE.read_text(encoding="utf-8").rstrip()]),
        ),
    }


def _page(date: str, section: str, name: str, what: str, body: Iterator[str]) -> str:
    head = [
        f".Dd {date}",
        f".Dt {name.upper()} {section}",
        ".Os",
        ".Sh NAME",
        f".Nm {name}",
        f".Nd {what}",
    ]
    return "\n".join([*head, *body]) + "\n"


# --- bridged(1) -----------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    root = command_tree()
    leaves = [command for command in root.walk() if not command.children]
    yield ".Sh SYNOPSIS"
    for command in leaves:
        yield from (".Nm", f".Cm {' '.join(command.words)}", *_synopsis(command))
    yield from (".Nm", ".Fl -version")
    yield ".Sh DESCRIPTION"
    yield from _paragraphs(root.help)
    yield "The daemon itself is described in"
    yield ".Xr bridged 8 ,"
    yield "its configuration in"
    yield ".Xr bridged.yaml 5 ."
    yield from (".Pp", "The commands are:", ".Bl -tag -width Ds")
    for command in leaves:
        yield f".It Cm {' '.join(command.words)}"
        yield from _paragraphs(command.help)
        if command.arguments or len(command.options) > 1:
            yield ".Bl -tag -width Ds"
            for argument in command.arguments:
                yield f".It Ar {argument.value}"
                yield from _paragraphs(argument.help)
            for option in command.options[:-1]:
                yield f".It {_option(option)}"
                yield from _paragraphs(option.help)
            yield ".El"
    yield ".El"
    yield from (".Pp", "Every command also has", ".Fl h", "and", ".Fl -help .")
    yield from (".Sh EXIT STATUS", ".Bl -tag -width Ds")
    for status, meaning in (
        ("0", "Done."),
        ("1", "Failed at run time."),
        ("2", "Wrong use, or a wrong configuration."),
    ):
        yield from (f".It {status}", meaning)
    yield ".El"
    yield ".Sh EXAMPLES"
    yield from ("A server, and a profile for a client:", ".Bd -literal -offset indent")
    yield "bridged init --state /var/lib/bridged --remote vpn.example.net \\e"
    yield "    --bridge br0 --port eth1 --output /etc/bridged/conf.d/server.yaml"
    yield "systemctl reload bridged"
    yield "bridged invite warehouse --state /var/lib/bridged --output warehouse.ovpn"
    yield from (".Ed", ".Pp", "The client:", ".Bd -literal -offset indent")
    yield "bridged join warehouse.ovpn --bridge br0 --port eth1 \\e"
    yield "    --output /etc/bridged/conf.d/warehouse.yaml"
    yield from ("systemctl reload bridged", ".Ed")
    yield from (".Sh SEE ALSO", ".Xr bridged.yaml 5 ,", ".Xr bridge 8 ,", ".Xr bridged 8 ,", ".Xr openvpn 8")


def _synopsis(command: Command) -> Iterator[str]:
    for argument in command.arguments:
        yield f".Ar {argument.value}" if argument.required else f".Op Ar {argument.value}"
    for option in command.options[:-1]:
        longest = Option((option.names[-1],), option.value, "", option.required, option.repeats)
        yield f".{_option(longest)}" if option.required else f".Op {_option(longest)}"


def _option(option: Option) -> str:
    names = " , ".join(f"Fl {name[1:]}" for name in option.names)
    if not option.value:
        return names
    return f"{names} Ar {_escaped(option.value)}"


# --- bridged.yaml(5) ------------------------------------------------------------------------------


def _configuration() -> Iterator[str]:
    yield ".Sh DESCRIPTION"
    yield "One YAML file of at most 256 KiB, by default"
    yield ".Pa /etc/bridged/bridged.yaml ."
    yield "Unknown keys are refused."
    yield "YAML 1.2 applies: MAC addresses and words such as"
    yield ".Ql on"
    yield "need no quotes, and only"
    yield ".Ql true"
    yield "and"
    yield ".Ql false"
    yield "are booleans."
    yield "Relative paths start from the folder of their file."
    yield ".Ar NAME"
    yield "is a name of your choice."
    yield from (".Ss Drop-ins", "Files")
    yield ".Pa conf.d/*.yaml"
    yield "beside a file named"
    yield ".Pa bridged.yaml ,"
    yield "and"
    yield ".Pa NAME.d/*.yaml"
    yield "beside any other"
    yield ".Pa NAME.yaml ,"
    yield "are merged over it in the order of their names."
    yield "Mappings are merged key by key."
    yield "A list or any other value replaces the one of an earlier file."
    yield from (".Nm bridged", ".Cm show-config")
    yield "prints the result, with the file and line of each value."
    sections: dict[str, list[SchemaKey]] = {}
    for key in all_keys():
        sections.setdefault(key.path.rpartition(".")[0], []).append(key)
    for prefix, keys in sections.items():
        yield f".Ss {_escaped(prefix) or 'The top'}"
        yield from _paragraphs(inspect.cleandoc(keys[0].section.__doc__ or ""))
        yield ".Bl -tag -width Ds"
        for key in keys:
            yield from _key(key)
        yield ".El"
    yield from (".Sh FILES", ".Bl -tag -width Ds", ".It Pa /etc/bridged/bridged.yaml", "The configuration.")
    yield from (".It Pa /etc/bridged/conf.d/*.yaml", "Its drop-ins.")
    yield from (".It Pa /usr/share/doc/bridged/examples", "Examples, and the JSON schema for editors.", ".El")
    yield from (".Sh EXAMPLES", "A server:", ".Bd -literal -offset indent")
    text = Path("config/examples/server.yaml").read_text(encoding="utf-8")
    yield from (
        _escaped(line) for line in text.splitlines() if not line.lstrip().startswith("#") and line.strip()
    )
    yield ".Ed"
    yield from (".Sh SEE ALSO", ".Xr bridged 1 ,", ".Xr bridged 8")


def _key(key: SchemaKey) -> Iterator[str]:
    yield f".It Ic {_escaped(key.path.rpartition('.')[2])} : Ar {_escaped(key.kind.replace('`', ''))}"
    if key.description:
        yield from _paragraphs(_sentence(key.description))
    yield "Required." if key.required else f"Default: {_escaped(_default(key.default))}."
    # The path of a key inside `bridges.NAME` and the like; an example is worth most there.
    example = example_line(tuple(key.path.split(".")))
    if example is not None and key.required:
        yield f"Example: {_escaped(example)}"


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if value != "" else '""'


def _sentence(text: str) -> str:
    """A description as a sentence. A first word that is a value stays: `auto: …`."""
    begin = text[0].upper() if re.match(r"[a-z]+ ", text) else text[0]
    return f"{begin}{text[1:]}{'' if text.endswith('.') else '.'}"


# --- text -----------------------------------------------------------------------------------------


def _paragraphs(text: str) -> Iterator[str]:
    """Each sentence on its own line, as mdoc wants it; an empty line begins a paragraph."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".Pp"
        line = re.sub(r"\s+", " ", paragraph).replace("`", "")
        for sentence in re.split(r"(?<=[a-zA-Z0-9)'\"][.:]) (?=[A-Z0-9\"])", line):
            yield from (
                _escaped(part) for part in textwrap.wrap(sentence, LINE_CHARACTERS, break_on_hyphens=False)
            )


def _escaped(text: str) -> str:
    """Text as roff shows it: no escapes, no request at the start of a line, ASCII hyphens for the shell."""
    text = text.replace("\\", "\\e").replace("--", "\\-\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
