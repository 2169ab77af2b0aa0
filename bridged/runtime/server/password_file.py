"""A file of user names and Argon2 hashes: `NAME:HASH` or `NAME:HASH:SECRET`, one user a line.

SECRET is that of one-time codes. `bridged password` writes the file. Blocking: hashing takes about 50 ms.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from bridged.errors import ConfigurationError
from bridged.files import FileMark, mark_of, open_to_read, why_unreadable
from bridged.protocol.keys.one_time_code import OneTimeSecret, parse_one_time_secret

FILE_OCTETS_MAX: Final = 4 * 1024 * 1024
USERS_MAX: Final = 16_384
NAME_CHARACTERS_MAX: Final = 64
MEMORY_KIB: Final = 19_456
ITERATIONS: Final = 2
MEMORY_KIB_MAX: Final = 262_144
_NO_ARGON2: Final = (
    "this machine's OpenSSL is older than 3.2 and has no Argon2: update it, or check passwords by "
    "`authentication.command`"
)
_SALT_OCTETS: Final = 16
_HASH_OCTETS: Final = 32
# Of a password that nobody knows, for a file without users.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$otrfTWTXTGaFErWUiIyL7Q$1rMR4Vd7d1bmNsllbwGa4t82wHoNQupz4qSgrs5Cctk"
)


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file."""

    hash: str = field(repr=False)
    secret: OneTimeSecret | None = field(default=None, repr=False)


class UserFile:
    """The users in a file, which is read again when it changes.

    Raises:
        ConfigurationError: from all methods: the file cannot be read, or a line is wrong.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self._path = path
        self._key = key
        self._mark: FileMark = ()
        self._users: dict[str, User] = {}
        self._hashes: list[str] = []
        self._seed = b""

    def find(self, name: str) -> User | None:
        """The user of this name."""
        self._refresh()
        return self._users.get(name)

    def verify(self, name: str, password: str) -> User | None:
        """The user, if the password is right. Takes as long for an unknown name."""
        user = self.find(name)
        is_right = verify_password(password, self._hash_for(name))
        return user if is_right else None

    def pretend(self, name: str, password: str) -> None:
        """Take as long as `verify` does."""
        self._refresh()
        verify_password(password, self._hash_for(name))

    def users(self) -> dict[str, User]:
        """All of them, by name."""
        self._refresh()
        return dict(self._users)

    def _hash_for(self, name: str) -> str:
        """The user's; for an unknown name always that of the same other user.

        So unknown names cost what known ones do, in the same shares: time tells nobody who is known.
        """
        user, hashes = self._users.get(name), self._hashes
        if user is not None:
            return user.hash
        if not hashes:
            return _NOBODY
        number = int.from_bytes(hmac.digest(self._seed, name.encode("utf-8", "replace"), "sha256"), "big")
        return hashes[number % len(hashes)]

    def _refresh(self) -> None:
        try:
            with open_to_read(self._path) as stream:
                mark = mark_of(stream)
                if mark == self._mark:
                    return
                content = stream.read(FILE_OCTETS_MAX + 1)
        except (OSError, ValueError) as error:
            reason = why_unreadable(self._path, error)
            if isinstance(error, FileNotFoundError):
                reason += f"; `bridged password {self._path} NAME` makes it"
            raise ConfigurationError(f"cannot be read: {reason}", file=self._path, key=self._key) from None
        self._users, self._mark = parse_users(content, self._path, self._key), mark
        self._hashes = [user.hash for user in self._users.values()]
        # Strangers cannot know it: they do not know the hashes.
        self._seed = sha256(content).digest()


def parse_users(content: bytes, path: Path, key: str = "") -> dict[str, User]:
    """The users of a file's content.

    Raises:
        ConfigurationError: with the line that is wrong, and never with what it says.
    """

    def wrong(reason: str, line: int | None = None) -> ConfigurationError:
        return ConfigurationError(reason, file=path, line=line, key=key)

    users: dict[str, User] = {}
    if len(content) > FILE_OCTETS_MAX:
        raise wrong(f"larger than {FILE_OCTETS_MAX} bytes")
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(":")
        phc, _, secret = rest.partition(":")
        if not is_user_name(name):
            raise wrong(
                f"begins with no user name: 1 to {NAME_CHARACTERS_MAX} printable characters without `:`",
                number,
            )
        if name in users:
            raise wrong("has a user name that was in a line above", number)
        if not _is_hash(phc):
            raise wrong("has no Argon2 hash after the name: write it with `bridged password`", number)
        try:
            made = parse_one_time_secret(secret, key) if secret else None
        except ConfigurationError as error:
            raise wrong(f"the third field {error.reason}", number) from None
        users[name] = User(phc, made)
        if len(users) > USERS_MAX:
            raise wrong(f"more than {USERS_MAX} users", number)
    return users


def is_user_name(text: str) -> bool:
    """Whether this can be the name of a user, and of a peer."""
    return (
        0 < len(text) <= NAME_CHARACTERS_MAX
        and text.isprintable()
        and ":" not in text
        and text == text.strip()
        and not text.startswith("#")
    )


def hash_password(password: str) -> str:
    """The text that stands for the password in the file.

    Raises:
        ConfigurationError: this machine's TLS library has no Argon2.
    """
    try:
        maker = Argon2id(
            salt=os.urandom(_SALT_OCTETS),
            length=_HASH_OCTETS,
            iterations=ITERATIONS,
            lanes=1,
            memory_cost=MEMORY_KIB,
        )
    except UnsupportedAlgorithm:
        raise ConfigurationError(_NO_ARGON2) from None
    return maker.derive_phc_encoded(password.encode())


def verify_password(password: str, phc: str) -> bool:
    """Whether this is the password that the text stands for.

    Raises:
        ConfigurationError: this machine's TLS library has no Argon2.
    """
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except UnsupportedAlgorithm:
        raise ConfigurationError(_NO_ARGON2) from None
    except (InvalidKey, ValueError):
        return False
    return True


def _is_hash(text: str) -> bool:
    """An Argon2id hash whose cost is not absurd."""
    parts = text.split("$")
    if len(parts) != 6 or parts[1] != "argon2id":
        return False
    costs = dict(one.partition("=")[::2] for one in parts[3].split(","))
    numbers = [costs.get(name, "") for name in ("m", "t", "p")]
    if not all(number.isascii() and number.isdigit() and len(number) < 8 for number in numbers):
        return False
    memory, iterations, lanes = map(int, numbers)
    return 8 <= memory <= MEMORY_KIB_MAX and 1 <= iterations <= 64 and 1 <= lanes <= 16
