#!/bin/bash
# Makes the sdist of bridged-tap and, from that sdist, its wheel. Needs no network.
#   tap_wheel.sh DIR   put both there
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
mkdir -p "$1"
target=$(realpath "$1")
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# From a copy: a build leaves files in its tree.
tar -c --exclude=__pycache__ --exclude='*.egg-info' --exclude=tap/build tap | tar -x -C "$work"
(cd "$work/tap" && "$python" -c "from setuptools import build_meta; build_meta.build_sdist('$work')" >"$work/log" 2>&1) \
    || { cat "$work/log" >&2; exit 1; }
sdist=$(ls "$work"/bridged_tap-*.tar.gz)
mkdir "$work/unpacked"
tar -x -C "$work/unpacked" --strip-components=1 -f "$sdist"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
    --wheel-dir "$work/wheel" "$work/unpacked"
mv "$sdist" "$work"/wheel/bridged_tap-*.whl "$target"
