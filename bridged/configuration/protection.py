"""The sections about what protects a tunnel: certificates, and the wrap of the control channel. Pure."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from bridged.configuration.section import Section
from bridged.configuration.values import DigestName


class Tls(Section):
    """This end's certificate, and which peers are trusted.

    Each of `ca`, `certificate`, `key`, `crl` is a file or inline PEM.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    crl: str | None = None
    embedded: bool = Field(
        False, description="use the embedded CA in the state folder, which the first start makes"
    )
    peer_fingerprints: tuple[str, ...] = Field(
        (), description="SHA-256 of accepted peer certificates, instead of the CA or in addition to it"
    )
    peer_role: Literal["auto", "client", "server", "compatible", "any"] = Field(
        "auto",
        description="extended key usage required of the peer (remote-cert-tls); auto: the other role; "
        "compatible: the other role, or none at all, as OpenVPN without remote-cert-tls",
    )
    peer_name: str | None = Field(None, description="required common name of the peer's certificate")
    peer_name_prefix: str | None = Field(None, description="required beginning of that name")
    peer_subject: str | None = Field(
        None,
        description="required subject of the peer's certificate, as OpenVPN prints it: "
        "`C=NL, O=Example, CN=vpn`",
    )
    crl_expired: Literal["refuse", "warn"] = Field(
        "refuse",
        description="a revocation list that has ended: refuse everybody, or warn and use it as it is",
    )
    verify_command: tuple[str, ...] = Field(
        (),
        description="server: a program that is asked about each certificate of a client's chain "
        "(`tls-verify`)",
    )
    version_min: Literal["1.2", "1.3"] = Field("1.2", description="oldest TLS version accepted")
    version_max: Literal["1.2", "1.3"] = Field("1.3", description="newest TLS version offered")

    @field_validator("version_min", "version_max", mode="before")
    @classmethod
    def _version(cls, value: object) -> object:
        """In YAML 1.2 without quotes is a number."""
        return str(value) if isinstance(value, float) else value


class Wrap(Section):
    """Protection of the control channel against strangers (OpenVPN's tls-auth, tls-crypt, tls-crypt-v2).

    `static-key` is none: there is no TLS at all (OpenVPN's `secret`), for one old peer.
    """

    mode: Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2", "static-key"] = Field(
        "none",
        description="must be the same at all peers; with tls-crypt-v2 each client has a key of its own, and "
        "one that is stolen can be refused alone; static-key: no TLS, no forward secrecy",
    )
    key: str | None = Field(
        None,
        description="a file or its text: the static key, or with tls-crypt-v2 the server's or this client's; "
        "optional with tls.embedded, which makes one",
    )
    old_clients_key: str | None = Field(
        None,
        description="a server with mode tls-crypt-v2: the key of clients that have no own one, as OpenVPN "
        "2.4; a file or its text",
    )
    old_clients_mode: Literal["tls-crypt", "tls-auth"] = Field(
        "tls-crypt", description="how these wrap; with tls-auth, `direction` and `digest` are theirs"
    )
    verify_command: tuple[str, ...] = Field(
        (),
        description="a server with mode tls-crypt-v2: a program that is asked about the metadata of a "
        "client's key (`tls-crypt-v2-verify`), once the client has proved that it has the key",
    )
    max_age_days: float | None = Field(
        None,
        gt=0,
        description="a server with mode tls-crypt-v2: refuse client keys made longer ago, or without a date",
    )
    direction: Literal[0, 1] | None = Field(None, description="tls-auth, static-key: key-direction")
    digest: DigestName = Field("SHA1", description="tls-auth, static-key: `auth`")

    @model_validator(mode="after")
    def _key_has_a_mode(self) -> Self:
        if self.mode == "none" and self.key is not None:
            raise ValueError("`key` needs mode tls-auth, tls-crypt, tls-crypt-v2 or static-key")
        for name in ("old_clients_key", "max_age_days", "verify_command"):
            if self.mode != "tls-crypt-v2" and getattr(self, name):
                raise ValueError(f"`{name}` needs mode tls-crypt-v2")
        if "old_clients_mode" in self.model_fields_set and self.old_clients_key is None:
            raise ValueError("`old_clients_mode` needs `old_clients_key`")
        return self
