#!/bin/bash
# Makes the sdist of bridged-tap and, from that sdist, its wheel. Needs no network.
# The same files give the same bytes: their dates are SOURCE_DATE_EPOCH, or the date of the last commit.
#   tap_wheel.sh DIR   put both there
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
mkdir -p "$1"
target=$(realpath "$1")
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}

# From a copy: a build leaves files in its tree.
tar -c --exclude=__pycache__ --exclude='*.egg-info' --exclude=tap/build tap | tar -x --no-same-owner -C "$work"
chmod -R u=rwX,go=rX "$work/tap"
(cd "$work/tap" && "$python" -c "from setuptools import build_meta; build_meta.build_sdist('$work')" >"$work/log" 2>&1) \
    || { cat "$work/log" >&2; exit 1; }
sdist=$(ls "$work"/bridged_tap-*.tar.gz)
"$python" scripts/settle_sdist.py "$sdist"
mkdir "$work/unpacked"
tar -x -C "$work/unpacked" --strip-components=1 -f "$sdist"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
    --wheel-dir "$work/wheel" "$work/unpacked"
mv "$sdist" "$work"/wheel/bridged_tap-*.whl "$target"
