"""Certificates and keys of a profile as PEM texts, checked by the daemon's own rules."""

from __future__ import annotations

import base64
import binascii
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import typer

from bridged.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from bridged.profiles import Material, Profile
    from bridged.profiles.profile import LoginLine, ProxyLine

PROFILE_OCTETS_MAX: Final = 1 << 20


def read_octets(file: Path) -> bytes:
    """The content of a file of at most PROFILE_OCTETS_MAX bytes.

    Raises:
        ConfigurationError: it cannot be read, or is too large.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(PROFILE_OCTETS_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot be read: {reason}", file=file) from None
    if len(content) > PROFILE_OCTETS_MAX:
        raise ConfigurationError(f"larger than {PROFILE_OCTETS_MAX} bytes; is it a profile?", file=file)
    return content


class Materials:
    """The texts of one profile, by the file name that each gets.

    `password_file` has the password of an encrypted key or PKCS#12 file; otherwise the profile's `askpass`,
    or a question on the terminal. `remarks`: what the user should know, once `texts` has returned.
    """

    def __init__(self, profile: Profile, file: Path, password_file: Path | None = None) -> None:
        self.file = file
        self.remarks: list[str] = []
        self._profile = profile
        self._folder = file.absolute().parent / (profile.directory or "")
        self._password_file = password_file
        self._chain = ""

    def texts(self) -> dict[str, str]:
        """All texts.

        Raises:
            ConfigurationErrors: all files that cannot be read; each names line and directive.
        ConfigurationError: a text cannot be used.
        """
        from bridged.tls.pem import CERTIFICATES, REVOCATION_LISTS, STATIC_KEYS, WRAP_KEYS

        profile = self._profile
        wrap_keys = WRAP_KEYS if profile.wrap == "tls-crypt-v2" else STATIC_KEYS
        found = {
            "ca.crt": (profile.ca, "ca", CERTIFICATES),
            "own.crt": (profile.certificate, "cert", CERTIFICATES),
            "crl.pem": (profile.crl, "crl-verify", REVOCATION_LISTS),
            "wrap.key": (profile.wrap_key, self._wrap_directive, wrap_keys),
        }
        if profile.server is not None and profile.server.old_wrap is not None:
            old = profile.server.old_wrap
            found["old-wrap.key"] = (profile.server.old_wrap_key, old, STATIC_KEYS)
        texts: dict[str, str] = {}
        errors: list[ConfigurationError] = []

        def take(read: Callable[[], dict[str, str]]) -> None:
            try:
                texts.update(read())
            except ConfigurationError as error:
                errors.append(error)

        if profile.pkcs12 is not None:
            take(partial(self._opened, profile.pkcs12))
        for name, (material, key, labels) in found.items():
            if material is not None:
                take(partial(self._named, name, material, key, labels))
        if profile.key is not None:
            take(partial(self._key, profile.key))
        # Beside a `ca`, the other certificates of a PKCS#12 file are not trusted: they complete our chain.
        if profile.ca is not None and self._chain:
            texts["own.crt"] = f"{texts.get('own.crt', '')}\n{self._chain}"
        if profile.extra_certificates is not None:
            take(partial(self._extended, texts, profile.extra_certificates))
        if profile.login is not None:
            take(partial(self._login, profile.login))
        if profile.proxy is not None:
            take(partial(self._proxy, profile.proxy))
        if errors:
            raise ConfigurationErrors(sorted(errors, key=lambda error: error.line or 0))
        self._check_all(texts)
        return {
            name: (text if name in ("login.txt", "proxy.txt") else text.strip()) + "\n"
            for name, text in texts.items()
        }

    def _check_all(self, texts: dict[str, str]) -> None:
        if self._profile.wrap == "static-key":
            _check_static_key(texts, self.file, "secret")
            return
        if "own.crt" in texts:
            self._remark_on_end(texts["own.crt"])
            self._remark_on_usage(texts["own.crt"])
        role = "client" if self._profile.server is None else "server"
        _check_wrap(texts, self.file, role, self._profile.wrap)
        _check(texts, self.file, role)

    @property
    def _wrap_directive(self) -> str:
        return "secret" if self._profile.wrap == "static-key" else self._profile.wrap

    def exposed(self) -> list[str]:
        """Warnings about secrets that others may read, in the profile and in the files it names."""
        from bridged.configuration.secrets import exposure

        login = self._profile.login.material if self._profile.login is not None else None
        old = self._profile.server.old_wrap_key if self._profile.server is not None else None
        proxy = self._profile.proxy.login if self._profile.proxy is not None else None
        secrets = (self._profile.key, self._profile.pkcs12, self._profile.wrap_key, old, login, proxy)
        paths = dict.fromkeys(
            self._path(one) if one.path else self.file for one in secrets if one is not None
        )
        found = [exposure(path) for path in paths]
        return [f"the private key in {text}" for text in found if text is not None]

    def _text(self, material: Material, key: str, labels: tuple[bytes, ...]) -> str:
        """The PEM blocks of the wanted kind; without any, the whole text, which the checks refuse."""
        from bridged.profiles.text import decode_text
        from bridged.tls.pem import pem_blocks

        content = self._octets(material, key)
        try:
            return decode_text(pem_blocks(content, labels) or content, str(self.file))
        except ConfigurationError as error:
            raise self._error(error, material, key) from None

    def _named(self, name: str, material: Material, key: str, labels: tuple[bytes, ...]) -> dict[str, str]:
        return {name: self._text(material, key, labels)}

    def _extended(self, texts: dict[str, str], material: Material) -> dict[str, str]:
        from bridged.tls.pem import CERTIFICATES

        more = self._text(material, "extra-certs", CERTIFICATES)
        return {"own.crt": f"{texts.get('own.crt', '')}\n{more}"}

    def _key(self, material: Material) -> dict[str, str]:
        from bridged.tls.pem import PRIVATE_KEYS, is_encrypted
        from bridged.tls.private_key import without_password

        text = self._text(material, "key", PRIVATE_KEYS)
        if not is_encrypted(text.encode()):
            return {"own.key": text}
        password = self._password("the private key")
        try:
            text = without_password(text.encode(), password).decode()
        except ConfigurationError as error:
            raise self._error(error, material, "key") from None
        self._say_open()
        return {"own.key": text}

    def _login(self, login: LoginLine) -> dict[str, str]:
        """User name and password, a line each; nothing where the profile has no password."""
        from bridged.profiles.text import decode_text

        name = ""
        if login.material is not None:
            text = decode_text(self._octets(login.material, "auth-user-pass"), str(self.file))
            lines = [line.rstrip("\r") for line in text.strip("\r\n").split("\n")]
            if len(lines) > 1 and all(lines[:2]) and not login.has_name_only:
                self.remarks.append(
                    "the password is written, since the daemon starts unattended; only the file's owner may "
                    "read it"
                )
                return {"login.txt": "\n".join(lines[:2])}
            name = lines[0]
        first = repr(name) if name else "the user name"
        self.remarks.append(
            "auth-user-pass: nobody wrote the password down: write a file as `login.password` names it, mode "
            f"0600, with {first} in its first line and the password in the second"
        )
        return {}

    def _proxy(self, proxy: ProxyLine) -> dict[str, str]:
        """User name and password for the proxy, a line each."""
        from bridged.profiles.text import decode_text

        key = "http-proxy" if proxy.kind == "http" else "socks-proxy"
        if proxy.login is None:
            if proxy.asks:
                self.remarks.append(
                    f"{key}: nobody is asked, since the daemon starts unattended: write a file as "
                    "`proxy.credentials_file` names it, mode 0600, with the user name in its first line and "
                    "the password in the second"
                )
            elif proxy.takes_login:
                self.remarks.append(
                    f"{key}: nobody is asked: if the proxy wants a user name and a password, write both into "
                    "a file, mode 0600, and name it as `proxy.credentials_file`"
                )
            return {}
        text = decode_text(self._octets(proxy.login, key), str(self.file))
        lines = [line.rstrip("\r") for line in text.strip("\r\n").split("\n")]
        if len(lines) < 2 or not all(lines[:2]):
            reason = "needs two lines: user name and password"
            raise self._error(ConfigurationError(reason), proxy.login, key)
        return {"proxy.txt": "\n".join(lines[:2])}

    def _octets(self, material: Material, key: str) -> bytes:
        from bridged.profiles.hints import typographic

        if material.text is not None:
            return material.text.encode()
        path = self._path(material)
        try:
            if path.exists() and not path.is_file():
                # `join` would wait for ever on a pipe or a device.
                raise ConfigurationError("is not a regular file", file=path)
            return read_octets(path)
        except (ConfigurationError, OSError, ValueError) as error:
            reason = error.reason if isinstance(error, ConfigurationError) else f"cannot be read: {error}"
            words = (material.path or "",)
            reason = typographic(words) or foreign_path(material.path or "", key) or reason
            raise self._error(ConfigurationError(reason), material, key) from None

    def _path(self, material: Material) -> Path:
        """The file that a material names. One of a Windows folder may lie beside the profile."""
        from bridged.profiles.windows import file_name

        path = self._folder / (material.path or "")
        name = file_name(material.path or "")
        beside = self.file.absolute().parent / name if name else path
        try:
            return beside if name and beside.is_file() else path
        except (OSError, ValueError):
            return path

    def _opened(self, material: Material) -> dict[str, str]:
        from bridged.tls.pkcs12 import is_legacy, needs_password, read_pkcs12

        content = self._octets(material, "pkcs12")
        name = shlex.quote(str(self._folder / material.path)) if material.path else "FILE"
        try:
            if material.text is not None:
                content = base64.b64decode("".join(material.text.split()), validate=True)
            asks = needs_password(content) and not is_legacy(content)
            password = self._password("the PKCS#12 file", required=False) if asks else None
            opened = read_pkcs12(content, name, password)
        except binascii.Error:
            reason = "the block is not Base64 text"
            raise ConfigurationError(reason, file=self.file, line=material.line, key="pkcs12") from None
        except ConfigurationError as error:
            raise self._error(error, material, "pkcs12") from None
        if password is not None:
            self._say_open()
        texts = {"own.crt": opened.certificate_pem.decode(), "own.key": opened.key_pem.decode()}
        if opened.ca_pem:
            self._chain = texts["ca.crt"] = opened.ca_pem.decode()
        return texts

    def _password(self, what: str, *, required: bool = True) -> bytes | None:
        """The first line of the password's file, or an answer on the terminal; None: nobody can be asked."""
        material = self._profile.password
        if self._password_file is not None:
            content = read_octets(self._password_file)
        elif material is not None:
            content = self._octets(material, "askpass")
        elif sys.stdin.isatty() and sys.stderr.isatty():
            return str(typer.prompt(f"Password of {what}", hide_input=True, err=True)).encode()
        elif required:
            raise ConfigurationError(
                f"{what} is encrypted; give its password in a file: `--password-file FILE`, or write the key "
                "without a password: `openssl pkey -in OLD -out NEW`",
                file=self.file,
                line=self._profile.key.line if self._profile.key else None,
                key="key",
            )
        else:
            return None
        return content.split(b"\n")[0].rstrip(b"\r")

    def _remark_on_end(self, certificate: str) -> None:
        from bridged.tls.identity import chain_not_after

        try:
            end = chain_not_after(certificate.encode())
        except ConfigurationError:
            return  # The checks say it with its directive.
        if end < time.time():
            day = time.strftime("%Y-%m-%d", time.gmtime(end))
            self.remarks.append(f"warning: the certificate expired on {day}; the other end refuses it")

    def _remark_on_usage(self, certificate: str) -> None:
        from bridged.tls.verification import allows_role

        role: Literal["client", "server"] = "client" if self._profile.server is None else "server"
        if not allows_role(certificate.encode(), role):
            self.remarks.append(
                f"warning: the certificate is not for a {role}, says its extended key usage; the other end "
                "refuses it, unless it checks no usage"
            )

    def _say_open(self) -> None:
        self.remarks.append(
            "the private key is written without its password, since the daemon starts unattended; only the "
            "file's owner may read it"
        )

    def _error(self, error: ConfigurationError, material: Material, key: str) -> ConfigurationError:
        """The same reason, at the line where the profile names the file."""
        which = f"{self._folder / material.path} " if material.path else ""
        return ConfigurationError(f"{which}{error.reason}", file=self.file, line=material.line, key=key)


def foreign_path(path: str, key: str) -> str | None:
    """What to do about a path of Windows; None if it is none."""
    from bridged.profiles.windows import file_name, looks_eaten

    if looks_eaten(path):
        return (
            f"is a Windows path that lost its backslashes (in quotes they must be doubled); copy the file "
            f"beside the profile, and write its bare name: `{key} NAME`"
        )
    name = file_name(path)
    return f"is a Windows path; copy the file {name} beside the profile, then try again" if name else None


def _check_static_key(texts: dict[str, str], file: Path, directive: str) -> None:
    from bridged.protocol.keys.static_key import parse_static_key

    for name in ("wrap.key", "old-wrap.key"):
        if name in texts:
            parse_static_key(texts[name], f"{file}, {directive}")


def _check_wrap(texts: dict[str, str], file: Path, role: str, wrap: str) -> None:
    from bridged.protocol.keys.client_wrap_key import parse_client_key, parse_server_key

    of_all = texts if wrap != "tls-crypt-v2" else {}
    old = {name: text for name, text in texts.items() if name == "old-wrap.key"}
    _check_static_key(of_all | old, file, "tls-auth or tls-crypt")
    if wrap == "tls-crypt-v2" and "wrap.key" in texts:
        parse = parse_server_key if role == "server" else parse_client_key
        parse(texts["wrap.key"], f"{file}, tls-crypt-v2")


def _check(texts: dict[str, str], file: Path, role: str) -> None:
    """Refuse now what the daemon would refuse at its start."""
    from bridged.tls import TlsSettings, make_engine_factory

    settings = TlsSettings(
        "server" if role == "server" else "client",
        texts["own.crt"].encode() if "own.crt" in texts else None,
        texts.get("own.key", "").encode(),
        texts["ca.crt"].encode() if "ca.crt" in texts else None,
        texts["crl.pem"].encode() if "crl.pem" in texts else None,
        # Without a CA the settings require fingerprints; their values do not matter here.
        peer_fingerprints=() if "ca.crt" in texts else ("00" * 32,),
    )
    names = {"tls.certificate": "cert", "tls.key": "key", "tls.ca": "ca", "tls.crl": "crl-verify"}
    try:
        make_engine_factory(settings)
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, file=file, key=names.get(error.key, error.key)) from None
