#!/bin/bash
# Sets up the other ends of the interop tests under build/interop, beside what is installed on this machine and without
# installing anything: OpenVPN of other Debian suites, and SoftEther. Packages come from the Debian mirror that this
# machine uses and are verified by Debian's keyring. Safe to run again: what is there already is left alone.
#   interop.sh            everything
#   interop.sh NAME...    of: openvpn-2.5 openvpn-2.6 openvpn-2.7 softether
# Afterwards build/interop/NAME/run starts the program, with its own loader and libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

say() { echo "interop: $*" >&2; }
fail() { say "$*"; exit 1; }

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
declare -A SUITES=([openvpn-2.5]=bullseye [openvpn-2.6]=trixie [openvpn-2.7]=sid [softether]=bookworm)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(openvpn-2.5 openvpn-2.6 openvpn-2.7 softether)
out=$PWD/build/interop
mkdir -p "$out"

mirror() { # of this machine's own sources, in either format
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null \
        | sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
        | grep '/debian/*$' | tail -1 || true
}

unpack() { # NAME PACKAGE...: the packages and what they need, as if nothing were installed
    local name=$1 suite=${SUITES[$1]} root=$out/$1.new state=$out/$1.apt; shift
    rm -rf "$root" "$state"
    mkdir -p "$root" "$state"/{lists/partial,cache/archives/partial,debs}
    echo "deb [signed-by=$KEYRING] $mirror $suite main" > "$state/sources.list"
    : > "$state/status"
    local apt=(
        -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$state"
        -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache"
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root
    )
    apt-get "${apt[@]}" -qq update </dev/null || return 1
    # Of what apt would install only the programs and libraries matter.
    local wanted pattern
    pattern="^($(IFS='|'; echo "$*")|lib.*|openssl.*|zlib1g|softether-.*)\$"
    wanted=$(apt-get "${apt[@]}" --simulate --no-install-recommends install "$@" </dev/null \
        | awk '/^Inst/ {print $2}' | grep -E "$pattern" || true)
    [ -n "$wanted" ] || return 1
    # shellcheck disable=SC2086
    (cd "$state/debs" && apt-get "${apt[@]}" -qq download $wanted </dev/null) || return 1
    for package in "$state"/debs/*.deb; do dpkg -x "$package" "$root"; done
    rm -rf "$state" "$root"/usr/share/{doc,man,locale}
}

launcher() { # NAME PROGRAM: NAME/run
    local root=$out/$1.new
    cat > "$root/run" <<RUN
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
libraries=
for folder in "\$here"/lib/*-linux-gnu "\$here"/usr/lib/*-linux-gnu "\$here"/usr/lib/softether; do
    [ -d "\$folder" ] && libraries=\$libraries:\$folder
    [ -d "\$folder/ossl-modules" ] && export OPENSSL_MODULES="\$folder/ossl-modules"
done
for loader in "\$here"/lib64/ld-linux-* "\$here"/usr/lib64/ld-linux-* "\$here"/lib/*/ld-[l2]*.so* "\$here"/usr/lib/*/ld-linux-*; do
    [ -e "\$loader" ] && break
done
exec "\$loader" --library-path "\${libraries#:}" "\$here/$2" "\$@"
RUN
    chmod 755 "$root/run"
}

set_up() { # NAME
    case "$1" in
    openvpn-*)
        unpack "$1" openvpn && launcher "$1" usr/sbin/openvpn || return 1
        # It ends with status 1 after --version, before 2.6.
        { "$out/$1.new/run" --version || true; } | grep -q "^OpenVPN ${1#openvpn-}" || return 1 ;;
    softether) unpack "$1" softether-vpnserver softether-vpncmd ;;
    *) fail "unknown: $1" ;;
    esac
}

mirror=$(mirror)
[ -n "$mirror" ] || fail "no Debian mirror in /etc/apt/sources.list or sources.list.d"
[ -e "$KEYRING" ] || fail "$KEYRING is missing: apt-get install debian-archive-keyring"
for name in "${names[@]}"; do
    [ ! -e "$out/$name" ] || continue
    say "setting up $name (Debian ${SUITES[$name]:-})"
    set_up "$name" || fail "could not set up $name from $mirror"
    mv "$out/$name.new" "$out/$name"
done
