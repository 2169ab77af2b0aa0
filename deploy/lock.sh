#!/bin/bash
# Writes requirements.lock anew from pyproject.toml. Runs pip-tools in a virtual environment of its own, so
# that the project's environment holds nothing but what the lock file names. Needs the network.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --upgrade pip pip-tools
env -u PIP_FIND_LINKS "$work/venv/bin/pip-compile" --quiet --upgrade --generate-hashes --extra test \
    --allow-unsafe --strip-extras --no-header --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --build-deps-for=editable --output-file "$work/requirements.lock" pyproject.toml
{
    echo '# Every Python package of the virtual environment, pinned by version and hash (CPython 3.11 and later, Linux).'
    echo '# Made by `make lock` from pyproject.toml (dependencies, extra "test", build requirements). Do not edit by hand.'
    cat "$work/requirements.lock"
} > requirements.lock
