"""SoftEther's VPN server with its OpenVPN protocol and a TAP: another implementation of what we speak.

It knows no tls-auth and no tls-crypt, sends DATA_V1, and needs a cipher named in the client's options string.
`scripts/interop.sh softether` brings the program.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.lab.pki import Identity, write_private
from tests.lab.processes import Process
from tests.lab.topology import Site
from tests.lab.waiting import LabError, wait_for

FOLDER = Path(__file__).parents[2] / "build" / "interop" / "softether"
DEVICE = "lab"
TAP = f"tap_{DEVICE}"
ADMIN_PORT = 5555
LIBRARIES = ("libreadline.so.8", "libtinfo.so.6", "libssl.so.3", "libcrypto.so.3", "libz.so.1")
# It writes where Debian has it write; here these places are its own, and end with it.
START = """
for folder in /run /var/lib /var/log; do
    mount -t tmpfs none $folder
    mkdir $folder/softether
done
exec ./vpnserver execsvc
"""


class SoftEther:
    """One server at a site, its TAP in the site's bridge `br0`; it knows clients by certificate (RSA)."""

    def __init__(self, site: Site, server: Identity, clients: dict[str, Identity]) -> None:
        self._site = site
        self._server = server
        self._clients = clients
        self._folder = site.namespace.directory / f"{site.namespace.role}-softether"
        self.process: Process | None = None

    def start(self) -> SoftEther:
        """Start and configure it; its OpenVPN port is 1194."""
        if not FOLDER.exists():
            raise LabError(f"{FOLDER} is missing: bash scripts/interop.sh softether")
        self._folder.mkdir()
        programs = FOLDER / "usr" / "libexec" / "softether"
        for name in ("vpnserver/vpnserver", "vpnserver/hamcore.se2", "vpncmd/vpncmd"):
            shutil.copy(programs / name, self._folder)
        libraries = self._folder / "lib"
        libraries.mkdir()
        for name in LIBRARIES:
            found = sorted(FOLDER.glob(f"**/{name}"))
            if found:
                shutil.copy(found[0], libraries)
        (self._folder / "start.sh").write_text(START, encoding="ascii")
        command = f"cd {self._folder} && exec unshare --mount --propagation private sh start.sh"
        self.process = self._site.namespace.popen(
            "sh", "-c", command, log="softether", env=self._environment()
        )
        self._configure()
        wait_for(lambda: TAP in self._site.namespace.ip("link", "show"), "SoftEther's TAP")
        self._site.attach(TAP)
        return self

    def stop(self) -> None:
        """It forks: what is left of it ends with the namespace."""
        if self.process is not None:
            self.process.stop()

    def version(self) -> str:
        """Such as `5.01 Build 9674`.

        Raises:
            LabError: it does not say.
        """
        found = re.search(r"Version ([\d.]+ Build \d+)", self._command("/CMD", "ServerInfoGet"))
        if found is None:
            raise LabError("SoftEther does not say its version")
        return found[1]

    def _environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self._folder / "lib")}

    def _configure(self) -> None:
        lines = [
            f"ServerCertSet /LOADCERT:{self._file('server', 'crt')} /LOADKEY:{self._file('server', 'key')}"
        ]
        write_private(self._file("server", "crt"), self._server.certificate)
        write_private(self._file("server", "key"), self._server.key)
        lines.append("Hub DEFAULT")
        for name, identity in self._clients.items():
            write_private(self._file(name, "crt"), identity.certificate)
            lines += [
                f"UserCreate {name} /GROUP:none /REALNAME:none /NOTE:none",
                f"UserCertSet {name} /LOADCERT:{self._file(name, 'crt')}",
            ]
        lines.append(f"BridgeCreate DEFAULT /DEVICE:{DEVICE} /TAP:yes")
        script = self._folder / "commands"
        script.write_text("\n".join(lines) + "\n", encoding="ascii")
        wait_for(self._answers, "SoftEther to answer", 15)
        self._command(f"/IN:{script}")

    def _answers(self) -> bool:
        return f":{ADMIN_PORT}" in self._site.namespace.run("ss", "-Hltn")

    def _command(self, *words: str) -> str:
        libraries = f"LD_LIBRARY_PATH={self._folder / 'lib'}"
        command = (
            "env",
            "-C",
            str(self._folder),
            libraries,
            "./vpncmd",
            f"localhost:{ADMIN_PORT}",
            "/SERVER",
        )
        return self._site.namespace.run(*command, *words)

    def _file(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}.{suffix}"

    def log(self) -> str:
        """What the server has logged: it stands in its own /var/log."""
        if self.process is None:
            return ""
        for pid in self._site.namespace.pids():
            for file in sorted(Path(f"/proc/{pid}/root/var/log/softether/server_log").glob("*.log")):
                return file.read_text(encoding="utf-8", errors="replace")
        return ""


__all__ = ["FOLDER", "SoftEther"]
