"""The page docs/import.md, from the tables of directives. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridged.profiles.draft import FileRole
from bridged.profiles.meanings import BECOMES, SERVER_BECOMES
from bridged.profiles.not_yet import NOT_YET
from bridged.profiles.table import DIRECTIVES, Directive

_INTRODUCTION: Final = """\
# What `bridged import` makes of OpenVPN's files

Generated from the tables in `bridged/profiles` by `python -m bridged.telemetry.reference`; edit those.

    bridged import server.conf --port eth1 --output server.yaml

reads a client's profile (`.ovpn`), a server's configuration or OpenWrt's `/etc/config/openvpn` (`--section
NAME` chooses one of its sections). It writes a configuration, and prints a line for each directive: `taken`,
`changed` (taken with a change), `not needed`, or `refused` with the reason and the cure. `bridged join` does
the same for clients' profiles only, and prints only what is changed or refused. Nothing of the file is run.

Files that a profile names must lie where it says; those of a Windows path may lie beside it. Keys may be
encrypted, and PKCS#12 files may have a password: write it into a file and give `--password-file FILE`, or
answer the question on the terminal. Text may be UTF-8, UTF-16 with a byte order mark, or Latin-1.

`tls.peer_role: compatible` stands in configurations made of files without `remote-cert-tls`: as with OpenVPN,
the other end's certificate needs no extended key usage, but must not be made for another role.
"""
_OUTRO: Final = "Directives whose name begins with `management-` are not needed, with `pkcs11-` refused.\n"


def import_page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION, "## Not supported yet", "", "| what | says |", "| --- | --- |"]
    lines += [f"| {ability.replace('_', ' ')} | {missing.reason} |" for ability, missing in NOT_YET.items()]
    lines += ["", "## Directives of clients", "", *_table("client", DIRECTIVES["client"])]
    of_server = {
        name: entry for name, entry in DIRECTIVES["server"].items() if entry != DIRECTIVES["client"].get(name)
    }
    lines += ["", "## What is different in a server's file", "", *_table("server", of_server)]
    return "\n".join((*lines, "", _OUTRO))


def _table(role: FileRole, directives: Mapping[str, Directive]) -> list[str]:
    lines = ["| directive | becomes |", "| --- | --- |"]
    return lines + [
        f"| `{name}` | {_text(role, name, entry)} |" for name, entry in sorted(directives.items())
    ]


def _text(role: FileRole, name: str, entry: Directive) -> str:
    if entry.kind == "taken":
        return (SERVER_BECOMES.get(name) if role == "server" else None) or BECOMES[name]
    if entry.kind == "ignored":
        return "not needed"
    if entry.needs is not None:
        return f"refused: not supported yet ({entry.needs.replace('_', ' ')})"
    text = entry.text.removeprefix("ignored: ")
    return f"{'not needed' if entry.kind == 'noted' else 'refused'}: {text}"
