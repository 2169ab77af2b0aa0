"""The sections about who may connect, and with what: logins, passwords, single clients, addresses."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from bridged.addresses import Endpoint
from bridged.configuration.section import Section

PROXY_KINDS: Final = ("http", "socks5")


class Proxy(Section):
    """The proxy through which a client reaches its servers over TCP."""

    url: str | None = Field(None, description="required: http://host:port (CONNECT) or socks5://host:port")
    credentials_file: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="a file with user name and password for the proxy, one line each, or its text as a block",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        kind, separator, where = value.partition("://")
        if kind not in PROXY_KINDS or not separator:
            raise ValueError(f"must begin with http:// or socks5://, not {value[:40]!r}")
        return f"{kind}://{Endpoint.parse(where.removesuffix('/'))}"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.url is None:
            raise ValueError("`proxy` needs `url: http://host:port` or `url: socks5://host:port`")
        return self


class Login(Section):
    """A client's user name and password, where its server asks for them (OpenVPN's auth-user-pass)."""

    username: str | None = Field(
        None,
        min_length=1,
        max_length=127,
        description="the user name; default: the line before the password in its file",
    )
    password: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="required: a file with the password in its first line (after the user name, if "
        "`username` is not set), or its text as a block",
    )
    challenge: Literal["none", "scrv1", "concat"] = Field(
        "none",
        description="how the one-time code is sent beside the password (`static-challenge`): scrv1 as "
        "OpenVPN does, concat behind the password",
    )
    totp_secret: str | None = Field(
        None,
        repr=False,
        description="secret of one-time codes: Base32 or an otpauth:// address, in a file or as a block",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.password is None:
            raise ValueError("`login` needs `password: FILE`")
        if self.challenge != "none" and self.totp_secret is None:
            raise ValueError(f"`challenge: {self.challenge}` needs `totp_secret: FILE`")
        return self


class Authentication(Section):
    """How a server checks its clients' user names and passwords. One of `password_file` and `command`."""

    password_file: Path | None = Field(
        None, description="users and Argon2 hashes, as `bridged password` writes them"
    )
    command: tuple[str, ...] = Field(
        (), description="a program that is asked, with its arguments (`auth-user-pass-verify`)"
    )
    command_input: Literal["file", "environment"] = Field(
        "file",
        description="how the command gets the password: a file that its last argument names (`via-file`), "
        "or the variable `password` (`via-env`)",
    )
    command_seconds: float = Field(
        30, ge=1, le=300, description="how long the command may take; it may answer later (status 2)"
    )
    optional: bool = Field(
        False, description="let clients with a certificate in that send neither name nor password"
    )
    client_certificate: Literal["required", "optional", "none"] = Field(
        "required", description="whether clients show a certificate, too (`verify-client-cert`)"
    )
    name_from: Literal["certificate", "username"] = Field(
        "certificate",
        description="what a client is called; without a certificate always by its user name "
        "(`username-as-common-name`)",
    )
    token_seconds: float = Field(
        86400,
        ge=0,
        description="how long a token stands for the password after a login (`auth-gen-token`); 0: no tokens",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.password_file is None) == (not self.command):
            raise ValueError("needs one of `password_file: FILE` and `command: [PROGRAM]`")
        return self


class AddressPool(Section):
    """IPv4 addresses that a server gives to its clients by name, and keeps for them (`server-bridge`)."""

    first: IPv4Address | None = Field(None, description="required: the first address")
    last: IPv4Address | None = Field(None, description="required: the last address")
    prefix: int = Field(24, ge=8, le=30, description="prefix length of the LAN's network")
    gateway: str | None = Field(
        None, description="the router that clients are told (`route-gateway`); default: none"
    )

    @field_validator("gateway")
    @classmethod
    def _gateway(cls, value: str | None) -> str | None:
        if value is not None and value != "dhcp":
            try:
                IPv4Address(value)
            except ValueError:
                raise ValueError(f"{value!r} is no IPv4 address") from None
        return value

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.first is None or self.last is None:
            raise ValueError("`address_pool` needs `first` and `last`")
        network = IPv4Network((self.first, self.prefix), strict=False)
        ends = (network.network_address, network.broadcast_address)
        if self.first > self.last or self.last not in network or self.first in ends or self.last in ends:
            raise ValueError(f"{self.first} to {self.last} are not addresses of hosts in {network}")
        return self

    @property
    def network(self) -> IPv4Network:
        return IPv4Network((self.first or IPv4Address(0), self.prefix), strict=False)


class Client(Section):
    """What is different for one client of a server; its key is the client's name."""

    enabled: bool = Field(True, description="false: it may not connect")
    until: str | None = Field(
        None, description="last day on which it may connect, as `2027-12-31`, or a moment in UTC"
    )
    address: IPv4Address | None = Field(
        None, description="its address, in the network of `address_pool` (`ifconfig-push`)"
    )
    push: tuple[str, ...] = Field((), description="more OpenVPN options for this client")
    sessions_max: Annotated[int, Field(ge=1, le=16_000_000)] | None = Field(
        None, description="most sessions at once, with `duplicate_names`"
    )

    @field_validator("until", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """YAML reads an unquoted date as one."""
        return value.isoformat() if isinstance(value, date) else value

    @field_validator("until")
    @classmethod
    def _until(cls, value: str | None) -> str | None:
        if value is not None:
            moment_of(value)
        return value

    @property
    def ends_at(self) -> float | None:
        """Unix seconds after which it may not connect."""
        return None if self.until is None else moment_of(self.until)


def moment_of(text: str) -> float:
    """The Unix time at which a day ends, or of a moment in UTC.

    Raises:
        ValueError: it is neither.
    """
    try:
        if len(text) <= len("2027-12-31"):
            return datetime.combine(date.fromisoformat(text), time.max, UTC).timestamp()
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day, as 2027-12-31, nor a moment, as 2027-12-31T18:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
