"""What a login costs does not say whether its user is known, or uses one-time codes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from bridged.runtime.server import password_file
from bridged.runtime.server.login_checks import _verify
from bridged.runtime.server.password_file import UserFile

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
EIGHT = f"otpauth://totp/x?secret={SECRET}&digits=8"
CHEAP, DEAR = "m=64,t=1,p=1", "m=128,t=2,p=1"


def hashed(password: str, costs: str) -> str:
    memory, iterations, lanes = (int(one.partition("=")[2]) for one in costs.split(","))
    maker = Argon2id(salt=os.urandom(16), length=32, iterations=iterations, lanes=lanes, memory_cost=memory)
    return maker.derive_phc_encoded(password.encode())


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The costs of each hash that was computed."""
    found: list[str] = []
    verify = password_file.verify_password

    def count(password: str, phc: str) -> bool:
        found.append(phc.split("$")[3])
        return verify(password, phc)

    monkeypatch.setattr(password_file, "verify_password", count)
    return found


def write(path: Path, **lines: str) -> UserFile:
    path.write_text("".join(f"{name}:{text}\n" for name, text in lines.items()))
    return UserFile(path)


def test_unknown_names_cost_what_the_users_cost_in_the_same_shares(tmp_path: Path, spent: list[str]) -> None:
    users = write(
        tmp_path / "users",
        **{f"u{number}": hashed("right", CHEAP if number % 4 else DEAR) for number in range(40)},
    )
    for number in range(40):
        assert users.verify(f"u{number}", "wrong") is None
    assert Counter(spent) == {CHEAP: 30, DEAR: 10}
    spent.clear()
    for number in range(400):
        assert users.verify(f"stranger{number}", "right") is None, "its stand-in's password counts for nobody"
    shares = Counter(spent)
    assert shares.keys() == {CHEAP, DEAR} and 60 <= shares[DEAR] <= 140
    first = list(spent)
    spent.clear()
    for number in range(400):
        users.verify(f"stranger{number}", "wrong")
    assert spent == first, "each name costs the same each time"


def test_one_cost_in_the_file_is_the_cost_of_all_names(tmp_path: Path, spent: list[str]) -> None:
    users = write(tmp_path / "users", alice=hashed("right", DEAR))
    assert users.verify("alice", "right")
    assert not users.verify("bob", "right") and not users.verify("", "right")
    assert spent == [DEAR] * 3
    # A change of the file changes it at once.
    write(tmp_path / "users", alice=hashed("right", CHEAP), carol=hashed("right", CHEAP))
    os.utime(tmp_path / "users", (1, 1))
    assert not users.verify("bob", "right")
    assert spent[-1] == CHEAP


def test_a_file_without_users_costs_as_new_ones_do(tmp_path: Path, spent: list[str]) -> None:
    assert not write(tmp_path / "users").verify("bob", "right")
    assert spent == [f"m={password_file.MEMORY_KIB},t={password_file.ITERATIONS},p=1"]


@pytest.mark.parametrize(
    "password", ["wrong", "wrong123456", "wrong12345678", "123456", "12345678", "1234567"]
)
def test_users_with_and_without_codes_and_nobody_cost_the_same(
    tmp_path: Path, spent: list[str], password: str
) -> None:
    one = hashed("right", DEAR)
    users = write(
        tmp_path / "users",
        plain=one,
        six=f"{hashed('right', DEAR)}:{SECRET}",
        eight=f"{hashed('right', DEAR)}:{EIGHT}",
    )
    costs = []
    for name in ("plain", "six", "eight", "nobody"):
        spent.clear()
        assert _verify(users, name, password, None)[0] is None
        costs.append(list(spent))
    assert costs == [costs[0]] * 4 and len(costs[0]) in (1, 2)


def test_a_code_behind_the_password_is_found(tmp_path: Path) -> None:
    users = write(
        tmp_path / "users", six=f"{hashed('right', CHEAP)}:{SECRET}", eight=f"{hashed('1', CHEAP)}:{EIGHT}"
    )
    user, code = _verify(users, "six", "right123456", None)
    assert user is not None and code == "123456"
    user, code = _verify(users, "eight", "112345678", None)
    assert user is not None and code == "12345678"
