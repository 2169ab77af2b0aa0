"""Which compression framing both ends use: what a client asks for, what a server pushes, and what follows.

Source: docs/protocol/data.md#4-2; OpenVPN 2.5 to 2.7. A client that is configured for any framing says
`comp-lzo` in its options string. In its peer info it announces the kinds that it can use.
Pure: text in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.negotiation import PeerInfo
from bridged.protocol.packets.options_string import option_value

FramingSetting = Literal["auto", "none", "comp-lzo", "stub", "stub-v2"]
"""What one end is set to. `auto`: a server uses what each client needs, a client what the server pushes."""

STUBS: Final[tuple[tuple[str, str], ...]] = (
    ("IV_LZO_STUB", "1"),
    ("IV_COMP_STUB", "1"),
    ("IV_COMP_STUBv2", "1"),
)
"""What a client announces that can frame and does not compress."""

PUSHED: Final[Mapping[Framing, str]] = {
    "comp-lzo": "comp-lzo no",
    "stub": "compress stub",
    "stub-v2": "compress stub-v2",
}
"""The option that makes an OpenVPN client use a framing, without compression."""

_ABILITIES: Final[Mapping[Framing, tuple[str, ...]]] = {
    "comp-lzo": ("IV_LZO_STUB", "IV_LZO"),
    "stub": ("IV_COMP_STUB",),
    "stub-v2": ("IV_COMP_STUBv2",),
}
_COMPRESS: Final[Mapping[str, Framing]] = {
    "": "stub",
    "stub": "stub",
    "stub-v2": "stub-v2",
    "lzo": "comp-lzo",
    "lz4": "stub",
    "lz4-v2": "stub-v2",
    "migrate": "none",
}
_COMP_LZO: Final = ("", "no", "yes", "adaptive")
_PUSHABLE: Final = frozenset({"comp-lzo", "compress"})


def is_framing_option(option: str) -> bool:
    """An option of OpenVPN that turns framing on or off."""
    return option.split(maxsplit=1)[:1] != [] and option.split(maxsplit=1)[0] in _PUSHABLE


def framing_of_directive(words: Sequence[str]) -> Framing | None:
    """The framing that `comp-lzo …` or `compress …` stands for; None: OpenVPN has no such directive.

    Those that compress have a framing in which a payload may also be plain.
    """
    name, argument = words[0], words[1] if len(words) > 1 else ""
    if len(words) > 2:
        return None
    if name == "comp-lzo":
        return "comp-lzo" if argument in _COMP_LZO else None
    return _COMPRESS.get(argument)


def is_asked_for(options: str) -> bool:
    """The peer with this options string is configured for compression, or for framing without it."""
    return option_value(options, "comp-lzo") is not None


def framing_for_client(setting: FramingSetting, info: PeerInfo, options: str) -> Framing:
    """What a server uses with one client, and pushes to it. `options`: the client's options string.

    `auto` is OpenVPN's `compress migrate`: framing that costs nothing, if the client knows it, and only for
    clients that are configured for compression.
    """
    is_asked = is_asked_for(options)
    able: list[Framing] = [
        kind for kind, names in _ABILITIES.items() if any(info.get(name) == "1" for name in names)
    ]
    if setting == "none" or not (is_asked or (able and setting != "auto")):
        return "none"
    wanted: Framing = "stub-v2" if setting == "auto" else setting
    if wanted in able:
        return wanted
    # Releases before 2.4 announce nothing, and know `comp-lzo` alone.
    return "comp-lzo" if is_asked or "comp-lzo" in able else "none"


def framing_of_server(setting: FramingSetting, pushed: str | None, options: str) -> Framing | None:
    """What a client uses with a server; None: it must not, or cannot know.

    `pushed`: the option that the server pushes. `options`: its options string.
    """
    if pushed is not None:
        framing = framing_of_directive(pushed.split())
        return None if framing != "none" and setting == "none" else framing
    own: Framing = "none" if setting == "auto" else setting
    if not options.startswith("V4,"):
        # It keeps its options to itself (`disable-occ`): only the own setting can be right.
        return own
    if not is_asked_for(options):
        return "none"
    return None if own == "none" else own
