#!/bin/bash
# Puts Debian's prometheus and promtool into build/prometheus, for the tests. Nothing is installed, so no service
# starts on this machine. Safe to run again, also at the same time: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

say() { echo "prometheus: $*" >&2; }
fail() { say "$*"; exit 1; }

out=$PWD/build/prometheus
mkdir -p build
exec 9> build/.prometheus.lock
flock 9
[ ! -x "$out/promtool" ] || exit 0
command -v apt-get >/dev/null || fail "this script knows only apt-get; put prometheus and promtool into $out"

new=$(mktemp -d "$PWD/build/prometheus.XXXXXX")
trap 'rm -rf "$new"' EXIT
fetch() { (cd "$new" && apt-get -qq -o APT::Sandbox::User=root download prometheus </dev/null); }
say "fetching Debian's package"
fetch 2>/dev/null || { apt-get -qq update </dev/null >&2 || true; fetch; } || fail "could not fetch the package prometheus"
dpkg-deb --fsys-tarfile "$new"/prometheus_*.deb | tar -xC "$new" --strip-components=3 ./usr/bin/prometheus ./usr/bin/promtool
rm "$new"/*.deb
chmod 755 "$new"
rm -rf "$out"
mv "$new" "$out"
trap - EXIT
