#!/bin/bash
# Makes an sdist and, from that sdist, its wheel. Needs no network and no Rust.
# The same files give the same bytes: their dates are SOURCE_DATE_EPOCH, or the date of the last commit.
#   sdist_and_wheel.sh DIR NAME WHEEL FOLDER FILE...   put both there: NAME-*.tar.gz and WHEEL; FOLDER has FILEs
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
mkdir -p "$1"
target=$(realpath "$1") name=$2 wheel=$3 folder=$4
shift 4
python=$PWD/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}

# From a copy: a build leaves files in its tree.
mkdir "$work/tree" "$work/unpacked"
tar -c -C "$folder" --exclude=__pycache__ --exclude='*.so' --exclude='*.egg-info' --exclude=native/target \
    --exclude=./build "$@" | tar -x --no-same-owner -C "$work/tree"
chmod -R u=rwX,go=rX "$work/tree"
(cd "$work/tree" && "$python" -c "from setuptools import build_meta; build_meta.build_sdist('$work')" >"$work/log" 2>&1) \
    || { cat "$work/log" >&2; exit 1; }
sdist=$(ls "$work/$name"-*.tar.gz)
"$python" scripts/settle_sdist.py "$sdist"
tar -x -C "$work/unpacked" --strip-components=1 -f "$sdist"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
    --wheel-dir "$work/wheel" "$work/unpacked"
# shellcheck disable=SC2086 # a pattern
mv "$sdist" "$work"/wheel/$wheel "$target"
