#!/bin/bash
# A second and last try for tests on real clocks and the real kernel, on a machine that others share: those under
# tests/system and tests/interop that failed run once more, alone. Any other failure is final, and so is a second one.
# Prints what needed it, so that nobody overlooks a test that gets unsteady.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=.pytest_cache/v/cache/lastfailed
[ -s $failed ] || { echo "again: no failed test is on record: the run itself failed"; exit 1; }
.venv/bin/python - $failed <<'PYTHON' || exit 1
import json
import sys

failed = sorted(json.load(open(sys.argv[1])))
final = [name for name in failed if not name.startswith(("tests/system/", "tests/interop/"))]
if final or not failed or len(failed) > 10:
    print(f"again: no second try ({len(failed)} failed, {len(final)} of them not on a real clock)")
    sys.exit(1)
print("again: these failed and get a second and last try:", *failed, sep="\n  ")
PYTHON
.venv/bin/python -m pytest --last-failed --last-failed-no-failures none tests/system tests/interop
