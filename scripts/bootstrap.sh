#!/bin/bash
# Brings a fresh Debian 12 or 13 machine to where a `make` target works. Safe to run again: what is there already
# is left alone.
#   bootstrap.sh               what running needs: Python, a C compiler, .venv with what requirements.lock names
#   bootstrap.sh --lab         also the programs of the lab, for `make demo` and the tests
#   bootstrap.sh --tests       also what checks and tests need, into .venv (requirements-test.lock)
# More arguments: more programs, as `program:package`.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

lock=requirements.lock
# Programs that are called, each with the Debian package that brings it.
programs=(gcc:gcc)
lab=(
    openvpn:openvpn ip:iproute2 tc:iproute2 iperf3:iperf3 tcpdump:tcpdump nft:nftables ping:iputils-ping
    dnsmasq:dnsmasq-base dhclient:isc-dhcp-client ethtool:ethtool sysctl:procps curl:curl
)
tests=(systemd-analyze:systemd)
# The Debian package's checkers, what it needs itself, and the shells that its completions are for.
tests+=(
    lintian:lintian mandoc:mandoc zsh:zsh fish:fish strip:binutils
    /usr/bin/py3compile:python3 systemd-sysusers:systemd deb-systemd-helper:init-system-helpers
)
for word in "$@"; do
    case "$word" in
    --lab) programs+=("${lab[@]}") ;;
    --tests) programs+=("${lab[@]}" "${tests[@]}"); lock=requirements-test.lock ;;
    --*) fail "usage: bootstrap.sh [--lab|--tests] [PROGRAM:PACKAGE ...]" ;;
    *) programs+=("$word") ;;
    esac
done

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
    # With old package lists, or none, apt-get knows no such packages.
    apt-get update -q </dev/null >&2 || say "the package lists could not be renewed; trying with the old ones"
    apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null >&2 \
        || fail "apt-get could not install: ${missing[*]}"
fi

python=$(usable_python) || fail "no Python 3.11 or later with venv; install python3 and python3-venv"
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
fi

say "installing Python packages from $lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
# The build backend comes from the lock file too; without isolation nothing unpinned is fetched.
# The native data plane is not pip's here, but native.sh's: it says what is missing, and builds it again
# when its sources change.
BRIDGED_PORTABLE_ONLY=1 \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./tap -e .
say "done: $(.venv/bin/python --version), $lock"
