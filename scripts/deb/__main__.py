"""`python -m scripts.deb [--arch amd64|arm64|armhf] [--output DIR]`: build bridged_VERSION_ARCH.deb.

amd64 has the native data plane of this tree (scripts/native.sh), which must be there. The others take it from
the newest wheel for that architecture in dist/; without one they are portable builds, and say so in their
description. DEB_VERSION and SOURCE_DATE_EPOCH replace version and date of the last commit; MAINTAINER, or
DEBFULLNAME and DEBEMAIL as Debian's own tools read them, say who publishes the package.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bridged import __version__
from scripts.deb.environment import NATIVE
from scripts.deb.package import MAINTAINER, Build, check_maintainer, pack, stage
from scripts.deb.targets import TARGETS, Target
from scripts.deb.wheels import fetch_wheels

CACHE = Path("build/deb")


def main() -> int:
    chosen = _parse()
    target = TARGETS[chosen.arch]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    version = os.environ.get("DEB_VERSION") or _version()
    maintainer = maintainer_of_the_build()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        native = _native(target, work)
        build = Build(
            target=target,
            version=version,
            epoch=epoch,
            wheels=tuple(fetch_wheels(target, CACHE / "wheels")),
            native=native,
            notices=_notices(work) if native else "",
            maintainer=maintainer,
        )
        tree = Path(chosen.stage) if chosen.stage else work / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        stage(build, tree)
        output = Path(chosen.output) / f"bridged_{version}_{target.name}.deb"
        pack(tree, output, epoch, chosen.compression)
    kind = "native data plane" if native else "PORTABLE data plane: no wheel for this architecture in dist/"
    print(f"deb: {output} ({output.stat().st_size >> 10} KiB), {kind}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.deb", description=__doc__)
    parser.add_argument("--arch", choices=sorted(TARGETS), default="amd64")
    parser.add_argument("--output", default="dist", help="folder of the package")
    parser.add_argument("--compression", type=int, default=6, help="level of xz, 0 to 9")
    parser.add_argument("--stage", default="", help="keep the tree in this folder")
    return parser.parse_args()


def maintainer_of_the_build() -> str:
    """What the environment says; otherwise MAINTAINER."""
    name, address = os.environ.get("DEBFULLNAME"), os.environ.get("DEBEMAIL")
    debians = f"{name} <{address}>" if name and address else MAINTAINER
    try:
        return check_maintainer(os.environ.get("MAINTAINER") or debians)
    except ValueError as error:
        raise SystemExit(f"deb: {error}") from None


def _version() -> str:
    """The version of a tagged tree; otherwise one that sorts before it, by the time of the last commit."""
    if _git("tag", "--points-at", "HEAD", "--list", f"v{__version__}"):
        return f"{__version__}-1"
    moment = _git("log", "-1", "--date=format-local:%Y%m%d%H%M%S", "--format=%cd.%h", TZ="UTC0")
    return f"{__version__}~git{moment}-1"


def _git(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def _native(target: Target, work: Path) -> Path | None:
    if target.name == "amd64":
        own = Path(NATIVE)
        if not own.exists():
            raise SystemExit("deb: the native data plane is not built; run `bash scripts/native.sh`")
        return own
    wheels = [
        path
        for path in Path("dist").glob(f"bridged-*_{target.wheel}.whl")
        if re.match(r"bridged-[^-]+-cp311-abi3-", path.name)
    ]
    for wheel in sorted(wheels, key=lambda path: path.stat().st_mtime, reverse=True)[:1]:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(NATIVE, work))
    return None


def _notices(work: Path) -> str:
    cargo = subprocess.run(
        ["bash", "scripts/native.sh", "--cargo"], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout.strip()
    output = work / "notices.txt"
    subprocess.run(
        [sys.executable, "scripts/notices.py", cargo, str(output)], check=True, stdout=subprocess.DEVNULL
    )
    return output.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
