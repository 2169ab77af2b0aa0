#!/bin/bash
# Makes the sdist of bridged and, from that sdist, the wheel of the portable build. Needs no network and no Rust.
# The same files give the same bytes: their dates are SOURCE_DATE_EPOCH, or the date of the last commit.
#   pure_wheel.sh DIR   put both there
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
mkdir -p "$1"
target=$(realpath "$1")
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BRIDGED_PORTABLE_ONLY=1 SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}

# From a copy: a build leaves files in its tree.
mkdir "$work/tree" "$work/unpacked"
tar -c --exclude=__pycache__ --exclude='*.so' --exclude=native/target pyproject.toml setup.py MANIFEST.in README.md \
    LICENSE CHANGELOG.md SECURITY.md requirements.lock bridged native | tar -x --no-same-owner -C "$work/tree"
chmod -R u=rwX,go=rX "$work/tree"
(cd "$work/tree" && "$python" -c "from setuptools import build_meta; build_meta.build_sdist('$work')" >"$work/log" 2>&1) \
    || { cat "$work/log" >&2; exit 1; }
sdist=$(ls "$work"/bridged-*.tar.gz)
"$python" scripts/settle_sdist.py "$sdist"
tar -x -C "$work/unpacked" --strip-components=1 -f "$sdist"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
    --wheel-dir "$work/wheel" "$work/unpacked"
mv "$sdist" "$work"/wheel/bridged-*-py3-none-any.whl "$target"
