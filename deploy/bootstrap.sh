#!/bin/bash
# Brings a fresh Debian 12 machine to where every `make` target works: Debian packages that are missing,
# then the virtual environment .venv with what requirements.lock names, then this project in place.
# Safe to run again: what is there already is left alone. Arguments: more programs, as `program:package`.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# Programs that the product, the lab and the tests call, each with the Debian package that brings it.
programs=(
    openvpn:openvpn ip:iproute2 tc:iproute2 iperf3:iperf3 tcpdump:tcpdump nft:nftables ping:iputils-ping
    dnsmasq:dnsmasq-base dhclient:isc-dhcp-client ethtool:ethtool sysctl:procps gcc:gcc
    "$@"
)

usable_python() { # newest interface first; one that can make an environment without further packages
    local candidate path
    for candidate in python3.11 python3 /usr/bin/python3 python3.12 python3.13; do
        path=$(command -v "$candidate") || continue
        "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        "$path" -c 'import venv, ensurepip, ctypes, ssl' 2>/dev/null || continue
        echo "$path"
        return 0
    done
    return 1
}

missing=()
for entry in "${programs[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
usable_python >/dev/null || missing+=(python3 python3-venv)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install them (this script knows only apt-get)"
    [ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}; run as root, or: apt-get install ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}")
    apt-cache show "${missing[@]}" >/dev/null 2>&1 || apt-get update -q </dev/null >&2
    # A stale package list fails the first try; fetch it anew and try once more.
    "${install[@]}" </dev/null >&2 || { apt-get update -q </dev/null >&2 && "${install[@]}" </dev/null >&2; } \
        || fail "apt-get could not install: ${missing[*]}"
fi

python=$(usable_python) || fail "no Python 3.11 or later with venv; install python3 and python3-venv"
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
fi

say "installing Python packages from requirements.lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
# The build backend comes from the lock file too; without isolation nothing unpinned is fetched.
# The native data plane is not pip's here, but native.sh's: it says what is missing, and builds it again
# when its sources change.
BRIDGED_PORTABLE_ONLY=1 \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
say "done: $(.venv/bin/python --version), $(openvpn --version 2>/dev/null | sed -n 's/^\(OpenVPN [^ ]*\).*/\1/p;q')"
