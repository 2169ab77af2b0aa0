#!/bin/bash
# Writes the lock files anew from pyproject.toml: requirements-test.lock (everything) and requirements.lock (what
# running and building need, in the same versions). Runs pip-tools in a virtual environment of its own, so that the
# project's environment holds nothing but what the lock files name. Needs the network.
#   lock.sh            renew every version
#   lock.sh --keep     keep the versions of the lock files, add and remove what pyproject.toml says
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --upgrade pip pip-tools

# Without bridged-tap, which comes from this tree (bootstrap.sh): no index is asked for its name.
mkdir -p "$work/source/bridged"
cp setup.py README.md LICENSE "$work/source/"
cp bridged/__init__.py "$work/source/bridged/"
sed '/^ *"bridged-tap[^"]*",$/d' pyproject.toml > "$work/source/pyproject.toml"
if grep -q '"bridged-tap' "$work/source/pyproject.toml"; then
    echo "lock: pyproject.toml names bridged-tap elsewhere than on a line of its own in dependencies" >&2
    exit 1
fi

compile() { # NAME OPTION...: write NAME
    local name=$1; shift
    (cd "$work/source" && BRIDGED_PORTABLE_ONLY=1 "$work/venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe \
        --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --build-deps-for=editable --output-file "$work/$name" "$@" pyproject.toml)
    {
        echo "# Python packages, pinned by version and hash (CPython 3.11 and later, Linux): $what."
        echo '# Made by `make lock` from pyproject.toml. Do not edit by hand.'
        cat "$work/$name"
    } > "$name"
}

upgrade=(--upgrade)
if [ "${1:-}" = --keep ]; then
    upgrade=()
    sed '/^#/d' requirements-test.lock > "$work/requirements-test.lock"
fi
what='all of them (dependencies, extra "test", build requirements)'
compile requirements-test.lock "${upgrade[@]}" --extra test
# The same versions: pip-compile keeps those of the file that it writes.
cp "$work/requirements-test.lock" "$work/requirements.lock"
what='those of running and building (dependencies, build requirements)'
compile requirements.lock
