"""Writes tap/API.md from the signatures and docstrings of bridged_tap: `python tap/reference.py`.

With `--check` nothing is written; exit status 1 says that the page is not what the code says.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import bridged_tap

PAGE: Final = Path(__file__).with_name("API.md")
SECTIONS: Final = {
    "Open, make, delete": (
        *("open_tap", "open_tun", "create_tap", "create_tun", "delete_adapter", "inherit_tap"),
        *("list_adapters", "adapter_info", "AdapterInfo", "check_device"),
    ),
    "Use": ("FrameReader", "Adapter", "TapAdapter", "TunAdapter", "Queue"),
    "Offloads": ("Offload", "VirtioHeader", "Segmentation"),
    "MAC addresses": (
        *(
            "MacAddress",
            "choose_mac",
            "MacPolicy",
            "MacMode",
            "draw_mac",
            "derive_mac",
            "load_mac",
            "store_mac",
        ),
        *("kernel_addresses", "address_owners", "collision_probability"),
    ),
    "The lock": ("find_holder", "Holder", "lock_adapter", "AdapterLock", "find_lock_holder"),
    "Errors": ("TapError", "TapSettingsError", "AdapterLockedError", "ERROR_CODES"),
    "Constants": ("FRAME_SIZE", "TXQUEUELEN_DEFAULT", "Mode"),
}
CONSTANTS: Final = {
    "FRAME_SIZE": "Bytes of the largest frame or super-frame, with VLAN tag and virtio-net header: a "
    "buffer for `readinto`.",
    "TXQUEUELEN_DEFAULT": "Frames that wait for `read` in an adapter opened without `txqueuelen`. The "
    "kernel's own default (500 or 1000) overflows under super-frames.",
    "Mode": "`tap` carries Ethernet frames, `tun` IP packets.",
}
MADE_ELSEWHERE: Final = {"FrameReader", "Adapter", "TapAdapter", "TunAdapter", "Queue", "AdapterLock"}
"""Classes that only the library constructs."""


def page() -> str:
    """The whole page."""
    listed = [name for names in SECTIONS.values() for name in names]
    if sorted(listed) != sorted(bridged_tap.__all__):
        raise SystemExit(f"reference.py and __all__ differ: {set(listed) ^ set(bridged_tap.__all__)}")
    lines = [
        "# API of bridged_tap",
        "",
        "<!-- Written by tap/reference.py from the code. Do not edit by hand. -->",
        "",
        "Everything is imported from `bridged_tap`. [README](README.md) shows how the parts go together.",
        "",
    ]
    for title, names in SECTIONS.items():
        links = " · ".join(f"[{name}](#{name.lower()})" for name in names)
        lines += [f"- **{title}**: {links}"]
    for title, names in SECTIONS.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", f"### {name}", "", *_entry(name, getattr(bridged_tap, name))]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any) -> Iterator[str]:
    if name == "ERROR_CODES":
        yield from ("| code | meaning |", "| --- | --- |")
        yield from (f"| `{code}` | {meaning} |" for code, meaning in value.items())
    elif name in CONSTANTS:
        text = (
            value
            if isinstance(value, int)
            else "Literal" + str(value).partition("Literal")[2].replace("'", '"')
        )
        yield from ("```python", f"{name} = {text}", "```", "", CONSTANTS[name])
    elif inspect.isclass(value):
        yield from _class(name, value)
    else:
        yield from _code(f"{name}{_signature(value)}")
        yield from _documentation(name, value)


def _class(name: str, kind: type) -> Iterator[str]:
    base = kind.__mro__[1].__name__
    if name in MADE_ELSEWHERE or issubclass(kind, enum.Enum):
        head = f"class {name}" + (f"({base})" if base != "object" else "")
    else:
        head = f"{name}{_signature(kind)}"
    yield from _code(head)
    yield from _documentation(name, kind)
    if issubclass(kind, enum.Enum):
        words = ", ".join(f"`{member.name}`" for member in kind.__members__.values())
        yield from ("", f"Members: {words}.")
        return
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    for key, member in vars(kind).items():
        if key.startswith("_") or key in fields:
            continue
        if isinstance(member, property):
            returns = member.fget.__annotations__["return"] if member.fget else ""
            yield from ("", f"#### {name}.{key}", "", *_code(f"{key}: {returns}"))
        elif inspect.isfunction(inspect.unwrap(getattr(kind, key))) or isinstance(member, classmethod):
            prefix = "async " if inspect.iscoroutinefunction(member) else ""
            call = f"{prefix}{key}{_signature(getattr(kind, key))}"
            yield from ("", f"#### {name}.{key}", "", *_code(call))
        else:
            continue
        yield from _documentation(f"{name}.{key}", member)


def _code(text: str) -> list[str]:
    if len(text) > 100:
        before, _, rest = text.partition("(")
        arguments, _, returns = rest.rpartition(")")
        parts = re.split(r", (?=[\w*]+(?::|,|$))", arguments)
        text = "\n".join((f"{before}(", *(f"    {part}," for part in parts), f"){returns}"))
    return ["```python", text, "```"]


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        text = parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        shown.append(text)
    returns = signature.return_annotation
    arrow = "" if returns in {signature.empty, None, "None"} else f" -> {returns}"
    return f"({', '.join(shown)}){arrow}"


def _default(value: object) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return f"os.{value.__name__}" if inspect.isbuiltin(value) else repr(value).replace("'", '"')


def _documentation(name: str, value: Any) -> Iterator[str]:
    text = inspect.getdoc(value)
    if not text or not text.strip():
        raise SystemExit(f"{name} has no docstring")
    before, _, raises = text.partition("Raises:\n")
    yield from ("", before.strip())
    if raises:
        yield from ("", "Raises:", "")
        for entry in re.split(r"\n(?=    \S)", raises.rstrip()):
            kind, _, why = entry.partition(": ")
            yield f"- `{kind.strip()}`: {' '.join(why.split())}"


def main() -> int:
    wanted = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
