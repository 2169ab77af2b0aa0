#!/bin/bash
# Checks of native/ for `make lint` and `make check`: `rust.sh lint` (rustfmt, clippy), `rust.sh test`.
# Where a tool is missing it says so and goes on: the installation works without Rust, too.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=$(bash scripts/native.sh --cargo) || { echo "$1: NOT RUN for native/: no usable Rust toolchain"; exit 0; }
cd native

has() { "$cargo" "$1" --version >/dev/null 2>&1 || { echo "$2: NOT RUN: this Rust toolchain has no $1"; return 1; }; }

case "$1" in
lint)
    echo "check: no circular imports in native/"
    python3 ../scripts/rust_circles.py core sys worker py
    echo "check: formatting of native/ (rustfmt)"
    ! has fmt lint || "$cargo" fmt --check
    echo "check: lint of native/ (clippy, warnings are errors)"
    if has clippy lint; then
        "$cargo" clippy --workspace --all-targets --locked --quiet -- -D warnings
        "$cargo" clippy --package bridged-worker --features model --lib --tests --locked --quiet -- -D warnings
    fi
    ;;
test)
    if "$cargo" nextest --version >/dev/null 2>&1; then
        "$cargo" nextest run --workspace --exclude bridged-benches --locked --cargo-quiet
    else
        "$cargo" test --workspace --exclude bridged-benches --locked --quiet
    fi
    echo "check: the structures that threads share, under every interleaving (loom)"
    "$cargo" test --package bridged-worker --features model --lib --locked --quiet models
    ;;
*) echo "usage: rust.sh lint|test" >&2; exit 2 ;;
esac
