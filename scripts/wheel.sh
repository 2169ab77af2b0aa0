#!/bin/bash
# Makes in dist/ sdists and wheels of bridged and bridged-tap: the wheel of the portable build, and one with the native
# data plane for each of x86-64, aarch64 and armv7l, tagged for the oldest glibc that it runs on. All are made from the sdist.
# Fails where the one for this host cannot be built; says `NOT BUILT` where another one cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$PWD/.venv/bin/python
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}

bash scripts/tap_wheel.sh dist
bash scripts/pure_wheel.sh dist
tap=$(ls -t dist/bridged_tap-*.whl | head -1)
sdist=$(ls -t dist/bridged-*.tar.gz | head -1)
export PATH="$PWD/.venv/bin:$PATH" BRIDGED_NATIVE_REQUIRED=1 CARGO_TARGET_DIR="$PWD/native/target"

# native_wheel CARGO NAME [PLATFORM]: unpack the sdist, build from it and put the tagged wheel into dist.
native_wheel() {
    local cargo=$1 tree=$work/$2 options=()
    [ -z "${3:-}" ] || options=(--config-settings=--build-option="--plat-name=$3")
    mkdir -p "$tree"
    tar -x -C "$tree" --strip-components=1 -f "$sdist"
    "$python" scripts/notices.py "$cargo" "$tree/LICENSE-THIRD-PARTY.txt" || return 1
    (cd "$tree" && CARGO=$cargo PATH="$(dirname "$cargo"):$PATH" "$python" -m pip wheel --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation "${options[@]}" --wheel-dir raw .) || return 1
    "$python" -m auditwheel repair --wheel-dir "$tree/tagged" "$tree"/raw/bridged-*.whl >"$tree/auditwheel.log" 2>&1 \
        || { cat "$tree/auditwheel.log" >&2; return 1; }
    wheel=dist/$(basename "$tree"/tagged/bridged-*manylinux*.whl)
    mv "$tree"/tagged/bridged-*manylinux*.whl dist/
    "$python" -m zipfile -l "$wheel" | grep -q LICENSE-THIRD-PARTY.txt \
        || { echo "wheel: the licences of the Rust packages are not in it" >&2; return 1; }
    # Built on a newer system it may call what only a newer glibc has.
    glibc=$(sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p' <<<"${wheel##*/}")
    [ -n "$glibc" ] || { echo "wheel: no glibc version in the name of $wheel" >&2; return 1; }
    if [ "$glibc" -gt 34 ]; then
        echo "wheel: NOT for Debian 12, RHEL 9 and others of that age: for these (glibc 2.34) build it on Debian 12" >&2
    fi
}

cargo=$(bash scripts/native.sh --cargo) || { echo "wheel: no usable Rust toolchain; try: make setup" >&2; exit 1; }
native_wheel "$cargo" host
.venv/bin/python -m venv --without-pip "$work/venv"
.venv/bin/python -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check \
    --require-hashes -r requirements.lock
.venv/bin/python -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check --no-deps \
    --no-index "$tap" "$wheel"
(cd / && "$work/venv/bin/python" -c "
from bridged.dataplane import choose_dataplane
choice = choose_dataplane('auto')
assert choice.kind == 'native', choice
")
echo "wheel: $wheel, installed and imported in a fresh environment; it needs glibc 2.$glibc or later and $tap"

# As the emulator tells (make test-architectures), the module works on these; the wheels themselves are not tried here.
for machine in arm64:aarch64 armhf:armv7l; do
    architecture=${machine#*:}
    settings=$(bash scripts/cross.sh "${machine%:*}") || { echo "wheel: NOT BUILT: $architecture, see above"; continue; }
    if (while read -r line; do export "${line?}"; done <<<"$settings"
        export CARGO_PROFILE_RELEASE_STRIP=debuginfo
        native_wheel "$CARGO" "$architecture" "linux_$architecture" && echo "$wheel" >"$work/built"); then
        echo "wheel: $(cat "$work/built"), for $architecture; not tried on this host"
    else
        echo "wheel: NOT BUILT: $architecture, the build failed, see above"
    fi
done
