"""`bridged pam` with the real PAM and a service of its own, as root and with the rights of the unit."""

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


USER, PASSWORD = "bridged-lab-user", "right one"
UNIX = "auth required pam_unix.so\naccount required pam_unix.so\n"
PREPARE = """
set -e
place=$1; shift
mount -t tmpfs -o mode=755 none /mnt
cp "$place/rules" "$place/passwd" "$place/shadow" "$place/check" /mnt/
chmod 644 /mnt/rules /mnt/passwd; chmod 640 /mnt/shadow; chmod 755 /mnt/check
install -m 600 -o "$owner" -g "$owner" "$place/login" /mnt/login
mount -t tmpfs -o mode=755 none /etc/pam.d
install -m 644 /mnt/rules /etc/pam.d/lab
mount --bind /mnt/passwd /etc/passwd
mount --bind /mnt/shadow /etc/shadow
exec "$@"
"""
# As deploy/systemd/bridged.service: User, NoNewPrivileges, capabilities, ProtectSystem=strict, ProtectHome.
NOBODY = 65534
OF_THE_UNIT = (
    *("sh", "-c", 'mount -o remount,bind,ro / && mount -t tmpfs -o mode=0 none /home && exec "$@"', "sh"),
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    "--bounding-set=-all,+net_admin,+net_bind_service,+net_raw",
)


@pytest.mark.parametrize(
    ("rules", "password", "as_root", "as_the_unit"),
    [
        (RULES.format(check="/mnt/check"), PASSWORD, 0, 0),
        (RULES.format(check="/mnt/check"), "wrong", 1, 1),
        (UNIX, PASSWORD, 0, 3),
    ],
    ids=["directory", "directory, wrong", "pam_unix"],
)
def test_with_the_rights_of_the_unit_a_directory_is_asked_and_the_host_s_own_passwords_are_not(
    tmp_path: Path, rules: str, password: str, as_root: int, as_the_unit: int
) -> None:
    """docs/passwords.md says what to do instead of pam_unix."""
    (tmp_path / "check").write_text(CHECK.replace("alice", USER))
    (tmp_path / "rules").write_text(rules)
    (tmp_path / "login").write_text(f"{USER}\n{password}\n")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    ).stdout.strip()
    for name, line in (
        ("passwd", f"{USER}:x:61234:61234::/nonexistent:/bin/sh\n"),
        ("shadow", f"{USER}:{hashed}:20000:0:99999:7:::\n"),
    ):
        (tmp_path / name).write_text(Path("/etc", name).read_text() + line)
    for owner, under, status in ((0, (), as_root), (NOBODY, OF_THE_UNIT, as_the_unit)):
        command = ["unshare", "--mount", "sh", "-c", PREPARE, "sh", str(tmp_path), *under]
        command += [BRIDGED, "pam", "lab", "/mnt/login"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "owner": str(owner)},
        )
        assert done.returncode == status, (owner, done.stderr)
        assert PASSWORD not in done.stdout + done.stderr
        assert ("write a password file instead" in done.stderr) == (status == 3)
