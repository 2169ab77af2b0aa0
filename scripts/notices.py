"""Writes the licence texts of all Rust packages that are linked into the native data plane to one file.

Usage: notices.py CARGO OUTPUT. Read from the sources that cargo built from; fails where one has no text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = "bridged-py"
TEXT_NAMES: Final = ("licence", "license", "copying", "notice", "copyright", "unlicense")


def linked_packages(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Third-party packages that end up in the module: no build tools, tests, procedural macros."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [identity for identity, package in packages.items() if package["name"] == ROOT]
    seen: set[str] = set()
    while waiting:
        identity = waiting.pop()
        package = packages[identity]
        if identity in seen or any("proc-macro" in target["kind"] for target in package["targets"]):
            continue
        seen.add(identity)
        waiting += [
            dependency["pkg"]
            for dependency in nodes[identity]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
    for package in sorted(
        (packages[identity] for identity in seen), key=lambda package: str(package["name"])
    ):
        if package["source"] is not None:
            yield package


def texts_of(package: dict[str, Any]) -> list[Path]:
    """Licence files of a package, those of sources that it carries included."""
    top = Path(package["manifest_path"]).parent
    found = [
        path
        for pattern in ("*", "*/*", "*/third_party/*/*")
        for path in top.glob(pattern)
        if path.is_file() and path.name.lower().startswith(TEXT_NAMES) and path.suffix not in (".rs", ".go")
    ]
    return sorted(found)


def main() -> int:
    cargo, output = sys.argv[1:]
    metadata = json.loads(
        subprocess.run(
            [cargo, "metadata", "--format-version", "1", "--locked", "--manifest-path", "native/Cargo.toml"],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    )
    parts = ["Software in the native data plane of bridged (bridged/_native), each under its own licence.\n"]
    without: list[str] = []
    linked = list(linked_packages(metadata))
    for package in linked:
        texts = texts_of(package)
        if not texts:
            without.append(package["name"])
        parts.append(f"{'=' * 100}\n{package['name']} {package['version']}: {package['license']}\n")
        top = Path(package["manifest_path"]).parent
        parts += [
            f"{'-' * 20} {path.relative_to(top)}\n{path.read_text(errors='replace')}\n" for path in texts
        ]
    if without:
        print(f"notices: no licence text in: {', '.join(without)}", file=sys.stderr)
        return 1
    Path(output).write_text("\n".join(parts))
    print(f"notices: {len(linked)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
