#!/bin/bash
# Makes the sdist of bridged-tap and, from that sdist, its wheel.
#   tap_wheel.sh DIR   put both there
set -euo pipefail
exec bash "$(dirname "$0")/sdist_and_wheel.sh" "$1" bridged_tap 'bridged_tap-*.whl' tap .
