"""A script that checks passwords for an OpenVPN server in the lab, and notes its calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

USER: Final = "alice"
PASSWORD: Final = "battery stäple"
TOTP_SECRET: Final = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

_SCRIPT: Final = """\
#!{python}
import base64, sys, time
lines = open(sys.argv[1], encoding="utf-8").read().split("\\n")
user, password = lines[0], lines[1]
code = "-"
if password.startswith("SCRV1:"):
    from bridged.protocol.keys.one_time_code import parse_one_time_secret
    _, password, answer = password.split(":")
    password = base64.b64decode(password).decode()
    secret = parse_one_time_secret({secret!r}, "secret")
    code = "code" if secret.step_of(base64.b64decode(answer).decode(), time.time()) else "wrong"
right = (user, password) == ({user!r}, {password!r}) and code in {codes!r}
open({calls!r}, "a").write(f"{{'right' if right else 'wrong'}} {{code}}\\n")
sys.exit(0 if right else 1)
"""


class PasswordScript:
    """The script in `folder`, and what it was called for. `wants_code`: a one-time code is part of it."""

    def __init__(self, folder: Path, *, wants_code: bool = False) -> None:
        self.file = folder / "check-password"
        self._calls = folder / "check-password.calls"
        self._calls.unlink(missing_ok=True)
        text = _SCRIPT.format(
            python=sys.executable,
            secret=TOTP_SECRET,
            user=USER,
            password=PASSWORD,
            codes=("code",) if wants_code else ("-",),
            calls=str(self._calls),
        )
        self.file.write_text(text, encoding="utf-8")
        self.file.chmod(0o700)

    def lines(self) -> tuple[str, ...]:
        """For the server's configuration."""
        return ("script-security 2", f"auth-user-pass-verify {self.file} via-file")

    def calls(self) -> list[str]:
        """`right` or `wrong` for each call so far, and what the one-time code was."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []
