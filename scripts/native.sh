#!/bin/bash
# Builds the native data plane, bridged/_native.abi3.so, where a Rust toolchain is at hand or can be had from
# Debian. Without one the installation goes on with the portable build: this says so, and why.
#   native.sh            build; exit status 0 also where it cannot be built
#   native.sh --require  build; exit status 1 where it cannot be built
#   native.sh --cargo    print the cargo to use; exit status 1 where there is none
# BRIDGED_PORTABLE_ONLY=1 leaves the native build out on purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

target=bridged/_native.abi3.so
manifest=native/Cargo.toml
reason=""
temporary=""
trap 'rm -f "$temporary"' EXIT

say() { echo "setup: $*" >&2; }

needed_version() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p;T;q' $manifest; }

is_new_enough() { # rustc beside this cargo
    local rustc version
    rustc="$(dirname "$1")/rustc"
    version=$("$rustc" --version 2>/dev/null | cut -d' ' -f2) && [ -n "$version" ] || return 1
    printf '%s\n%s\n' "$(needed_version)" "$version" | sort -V -C || { reason="rustc $version is older than $(needed_version)"; return 1; }
}

usable_cargo() { # sets `cargo`, or `reason`
    local candidate path
    reason="no Rust toolchain"
    for candidate in cargo "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/cargo" /usr/bin/cargo; do
        path=$(command -v "$candidate") || continue
        is_new_enough "$path" || continue
        cargo=$path
        return 0
    done
    return 1
}

install_cargo() { # Debian 12's own rustc is too old; these two packages bring a current one
    command -v apt-get >/dev/null || { reason+=", and no apt-get to bring one"; return 1; }
    [ "$(id -u)" = 0 ] || { reason+=" (as root, this would install cargo-web and rustc-web)"; return 1; }
    say "installing Debian packages: cargo-web rustc-web"
    export DEBIAN_FRONTEND=noninteractive
    # --no-remove: an older toolchain that somebody installed stays.
    local install=(apt-get install -y -q --no-remove --no-install-recommends -o Dpkg::Use-Pty=0 cargo-web rustc-web)
    apt-get update -q </dev/null >&2 || say "the package lists could not be renewed; trying with the old ones"
    "${install[@]}" </dev/null >&2 || { reason+=", and apt-get could not install cargo-web and rustc-web"; return 1; }
    usable_cargo
}

build() { # sets `reason` where it cannot
    [ "${BRIDGED_PORTABLE_ONLY:-}" != 1 ] || { reason="left out: BRIDGED_PORTABLE_ONLY=1"; return 1; }
    [ -e $manifest ] || { reason="no sources in native/"; return 1; }
    usable_cargo || install_cargo || return 1
    command -v cc >/dev/null || { reason="no C compiler (cc)"; return 1; }
    export CARGO_NET_RETRY=2 CARGO_HTTP_TIMEOUT=30
    (cd native && "$cargo" fetch --locked --quiet) || { reason="cargo could not fetch the crates of Cargo.lock"; return 1; }
    say "building the native data plane ($("$(dirname "$cargo")/rustc" --version))"
    (cd native && "$cargo" build --release --locked --quiet --package bridged-py) \
        || { reason="cargo build failed, see above"; return 1; }
    # Running programs keep the file that they have mapped: a new one takes its name.
    temporary="bridged/.native-$$.so"
    install -m 0755 native/target/release/lib_native.so "$temporary"
    .venv/bin/python - "$temporary" <<'PYTHON' || { reason="the module that was built cannot be imported"; return 1; }
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

loader = ExtensionFileLoader("bridged._native", sys.argv[1])
spec = spec_from_file_location("bridged._native", sys.argv[1], loader=loader)
loader.exec_module(module_from_spec(spec))
PYTHON
    mv -f "$temporary" $target
}

if [ "${1:-}" = --cargo ]; then
    usable_cargo || { echo "$reason" >&2; exit 1; }
    echo "$cargo"
elif build; then
    say "done: native data plane, $target"
else
    # One of older sources must not pass for this one.
    rm -f $target
    say "NO NATIVE DATA PLANE: $reason"
    say "the portable one (pure Python, slower) is used; \`make setup\` tries again"
    [ "${1:-}" != --require ] || exit 1
fi
