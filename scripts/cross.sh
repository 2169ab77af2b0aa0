#!/bin/bash
# Brings what builds the native data plane for another architecture: Debian's Rust compiler with its standard
# library for that one, unpacked under build/cross, and a C compiler.
#   cross.sh arm64   print NAME=VALUE lines for the environment of a build; exit status 1 where it cannot be had
# Rust comes from the main archive of Debian 12 alone: there every architecture has the same version.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

say() { echo "cross: $*" >&2; }

case "${1:-}" in
arm64) triple=aarch64-unknown-linux-gnu c=aarch64-linux-gnu-gcc packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
armhf) triple=armv7-unknown-linux-gnueabihf c=arm-linux-gnueabihf-gcc packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross) ;;
s390x) triple=s390x-unknown-linux-gnu c=s390x-linux-gnu-gcc packages=(gcc-s390x-linux-gnu libc6-dev-s390x-cross) ;;
*) echo "usage: cross.sh arm64|armhf|s390x" >&2; exit 2 ;;
esac
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
folder=$PWD/build/cross/$1
root=$folder/root

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || { say "this host is not amd64"; exit 1; }
if ! command -v "$c" >/dev/null || ! command -v mmdebstrap >/dev/null || [ ! -e "/usr/${c%-gcc}/include/stdio.h" ]; then
    [ "$(id -u)" = 0 ] || { say "run as root, or: apt-get install mmdebstrap ${packages[*]}"; exit 1; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 mmdebstrap "${packages[@]}" </dev/null >&2 \
        || { say "apt-get could not install: mmdebstrap ${packages[*]}"; exit 1; }
fi
if [ ! -e "$folder/complete" ]; then
    say "unpacking Debian's Rust for $1 (200 MB)"
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    mmdebstrap --quiet --variant=extract --architectures="amd64,$1" --aptopt='Acquire::Retries "5"' \
        --include="rustc-web,cargo-web,libstd-rust-web-dev:amd64,libstd-rust-web-dev:$1" \
        bookworm "$root" "deb $mirror bookworm main" >&2 || { say "no Rust for $1 from $mirror"; exit 1; }
    libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
    for program in rustc cargo; do
        # With its own loader: this host's C library may be older than Debian 12's, or newer.
        printf '#!/bin/sh\nexec "%s" --argv0 "%s" --library-path "%s" "%s" "$@"\n' "$root/lib64/ld-linux-x86-64.so.2" \
            "$folder/bin/$program" "$libraries" "$root/usr/bin/$program" >"$folder/bin/$program"
        chmod 0755 "$folder/bin/$program"
    done
    "$folder/bin/rustc" --version >&2
    touch "$folder/complete"
fi
name=$(tr a-z- A-Z_ <<<"$triple")
echo "CARGO=$folder/bin/cargo"
echo "RUSTC=$folder/bin/rustc"
echo "CARGO_BUILD_TARGET=$triple"
echo "CARGO_TARGET_${name}_LINKER=$c"
echo "CC_${triple//-/_}=$c"
