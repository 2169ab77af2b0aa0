#!/bin/bash
# Makes the sdist of bridged and, from that sdist, the wheel of the portable build.
#   pure_wheel.sh DIR   put both there
set -euo pipefail
export BRIDGED_PORTABLE_ONLY=1
exec bash "$(dirname "$0")/sdist_and_wheel.sh" "$1" bridged 'bridged-*-py3-none-any.whl' . \
    pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md SECURITY.md requirements.lock bridged native
