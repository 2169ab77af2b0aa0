#!/bin/bash
# Makes in dist/ the wheel and sdist of bridged-tap, and a wheel of bridged with the native data plane, tagged for the
# oldest glibc that it runs on. Tries both in a fresh virtual environment. Fails where the native data plane cannot be
# built.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bash scripts/tap_wheel.sh dist
tap=$(ls -t dist/bridged_tap-*.whl | head -1)
cargo=$(bash scripts/native.sh --cargo) || { echo "wheel: no usable Rust toolchain; try: make setup" >&2; exit 1; }
export CARGO=$cargo PATH="$(dirname "$cargo"):$PWD/.venv/bin:$PATH" BRIDGED_NATIVE_REQUIRED=1
# From a copy: what pip builds in a source tree must not meet the module that is in use there.
tar -c --exclude=__pycache__ --exclude='*.so' --exclude=native/target \
    pyproject.toml setup.py README.md LICENSE bridged native | tar -x -C "$work"
.venv/bin/python scripts/notices.py "$cargo" "$work/LICENSE-THIRD-PARTY.txt"
export CARGO_TARGET_DIR="$PWD/native/target"
(cd "$work" && "$OLDPWD/.venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --no-build-isolation --wheel-dir raw .)
mkdir -p dist
.venv/bin/auditwheel repair --wheel-dir dist "$work"/raw/bridged-*.whl >"$work/auditwheel.log" 2>&1 \
    || { cat "$work/auditwheel.log" >&2; exit 1; }
wheel=$(ls -t dist/bridged-*manylinux*.whl | head -1)
.venv/bin/python -m zipfile -l "$wheel" | grep -q LICENSE-THIRD-PARTY.txt \
    || { echo "wheel: the licences of the Rust packages are not in it" >&2; exit 1; }
.venv/bin/python -m venv --without-pip "$work/venv"
.venv/bin/python -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check \
    --require-hashes -r requirements.lock
.venv/bin/python -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check --no-deps \
    --no-index "$tap"
.venv/bin/python -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check --no-deps "$wheel"
# Built on a newer system it may call what only a newer glibc has.
glibc=$(sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p' <<<"${wheel##*/}")
[ -n "$glibc" ] || { echo "wheel: no glibc version in the name of $wheel" >&2; exit 1; }
(cd / && "$work/venv/bin/python" -c "
from bridged.dataplane import choose_dataplane
choice = choose_dataplane('auto')
assert choice.kind == 'native', choice
")
echo "wheel: $wheel, installed and imported in a fresh environment; it needs glibc 2.$glibc or later and $tap"
if [ "$glibc" -gt 34 ]; then
    echo "wheel: NOT for Debian 12, RHEL 9 and others of that age: for these (glibc 2.34) build it on Debian 12" >&2
fi
