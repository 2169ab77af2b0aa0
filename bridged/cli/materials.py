"""Certificates and keys of a profile as PEM texts, checked by the daemon's own rules."""

from __future__ import annotations

import base64
import binascii
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridged.errors import ConfigurationError

if TYPE_CHECKING:
    from bridged.profiles import Material, Profile

PROFILE_OCTETS_MAX: Final = 1 << 20


def read_octets(file: Path) -> bytes:
    """The content of a file of at most PROFILE_OCTETS_MAX bytes.

    Raises:
        ConfigurationError: it cannot be read, or is too large.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(PROFILE_OCTETS_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror or error}", file=file) from None
    if len(content) > PROFILE_OCTETS_MAX:
        raise ConfigurationError(f"larger than {PROFILE_OCTETS_MAX} bytes; is it a profile?", file=file)
    return content


class Materials:
    """The texts of one profile, by the file name that each gets."""

    def __init__(self, profile: Profile, file: Path) -> None:
        self._profile = profile
        self._file = file
        self._folder = file.absolute().parent / (profile.directory or "")

    def texts(self) -> dict[str, str]:
        """All texts.

        Raises:
            ConfigurationError: a file cannot be read, or a text cannot be used; names line and directive.
        """
        from bridged.tls.pem import CERTIFICATES, PRIVATE_KEYS, REVOCATION_LISTS, STATIC_KEYS

        profile = self._profile
        found = {
            "ca.crt": (profile.ca, "ca", CERTIFICATES),
            "client.crt": (profile.certificate, "cert", CERTIFICATES),
            "client.key": (profile.key, "key", PRIVATE_KEYS),
            "crl.pem": (profile.crl, "crl-verify", REVOCATION_LISTS),
            "wrap.key": (profile.wrap_key, profile.wrap, STATIC_KEYS),
        }
        texts = {
            name: self._text(material, key, labels)
            for name, (material, key, labels) in found.items()
            if material is not None
        }
        if profile.pkcs12 is not None:
            texts = {**self._opened(profile.pkcs12), **texts}
        if profile.extra_certificates is not None:
            texts["client.crt"] += "\n" + self._text(profile.extra_certificates, "extra-certs", CERTIFICATES)
        _check(texts, self._file)
        return {name: text.strip() + "\n" for name, text in texts.items()}

    def exposed(self) -> list[str]:
        """Warnings about secrets that others may read, in the profile and in the files it names."""
        from bridged.configuration.secrets import exposure

        secrets = (self._profile.key, self._profile.pkcs12, self._profile.wrap_key)
        paths = dict.fromkeys(
            self._folder / one.path if one.path else self._file for one in secrets if one is not None
        )
        found = [exposure(path) for path in paths]
        return [f"the private key in {text}" for text in found if text is not None]

    def _text(self, material: Material, key: str, labels: tuple[bytes, ...]) -> str:
        """The PEM blocks of the wanted kind; without any, the whole text, which the checks refuse."""
        from bridged.profiles.text import decode_text
        from bridged.tls.pem import pem_blocks

        content = self._octets(material, key)
        try:
            return decode_text(pem_blocks(content, labels) or content, str(self._file))
        except ConfigurationError as error:
            raise self._error(error, material, key) from None

    def _octets(self, material: Material, key: str) -> bytes:
        if material.text is not None:
            return material.text.encode()
        path = self._folder / (material.path or "")
        try:
            if path.exists() and not path.is_file():
                # `join` would wait for ever on a pipe or a device.
                raise ConfigurationError("is not a regular file", file=path)
            return read_octets(path)
        except ConfigurationError as error:
            raise self._error(error, material, key) from None

    def _opened(self, material: Material) -> dict[str, str]:
        from bridged.tls.pkcs12 import read_pkcs12

        content = self._octets(material, "pkcs12")
        name = shlex.quote(str(self._folder / material.path)) if material.path else "FILE"
        try:
            if material.text is not None:
                content = base64.b64decode("".join(material.text.split()), validate=True)
            opened = read_pkcs12(content, name)
        except binascii.Error:
            reason = "the block is not Base64 text"
            raise ConfigurationError(reason, file=self._file, line=material.line, key="pkcs12") from None
        except ConfigurationError as error:
            raise self._error(error, material, "pkcs12") from None
        texts = {"client.crt": opened.certificate_pem.decode(), "client.key": opened.key_pem.decode()}
        if opened.ca_pem:
            texts["ca.crt"] = opened.ca_pem.decode()
        return texts

    def _error(self, error: ConfigurationError, material: Material, key: str) -> ConfigurationError:
        """The same reason, at the line where the profile names the file."""
        which = f"{self._folder / material.path} " if material.path else ""
        return ConfigurationError(f"{which}{error.reason}", file=self._file, line=material.line, key=key)


def _check(texts: dict[str, str], file: Path) -> None:
    """Refuse now what the daemon would refuse at its start."""
    from bridged.protocol.keys.static_key import parse_static_key
    from bridged.tls import TlsSettings, make_engine_factory

    if "wrap.key" in texts:
        parse_static_key(texts["wrap.key"], f"{file}, tls-auth or tls-crypt")
    settings = TlsSettings(
        "client",
        texts["client.crt"].encode(),
        texts["client.key"].encode(),
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
