"""`bridged pam` with the real PAM, in a mount namespace with a service of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab import BRIDGED
from tests.lab.pki import write_private

pytestmark = pytest.mark.root

CHECK = '#!/bin/sh\nread -r password\n[ "$PAM_USER:$password" = "alice:right one" ]\n'
RULES = """\
auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {check}
auth required pam_deny.so
auth required pam_permit.so
account required pam_permit.so
"""
RUN = 'mount -t tmpfs none /etc/pam.d && cp "$0" /etc/pam.d/lab && shift 0 && exec "$@"'


@pytest.mark.parametrize(
    ("service", "login", "status"),
    [
        ("lab", "alice\nright one\n", 0),
        ("lab", "alice\nwrong\n", 1),
        ("lab", "bob\nright one\n", 1),
        ("lab", "alice\n", 2),
    ],
)
def test_pam_says_whether_a_password_is_right(tmp_path: Path, service: str, login: str, status: int) -> None:
    check, rules, file = tmp_path / "check", tmp_path / "rules", tmp_path / "login"
    check.write_text(CHECK)
    check.chmod(0o755)
    rules.write_text(RULES.format(check=check))
    write_private(file, login)
    command = ["unshare", "--mount", "sh", "-c", RUN, str(rules), BRIDGED, "pam", service, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "right one" not in done.stdout + done.stderr
