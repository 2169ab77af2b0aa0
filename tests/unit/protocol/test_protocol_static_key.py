"""Static key files."""

from __future__ import annotations

import pytest

from bridged.errors import ConfigurationError
from bridged.protocol.keys.static_key import StaticKey, parse_static_key

KEY = StaticKey(bytes(range(256)))


def test_a_key_file_reads_back() -> None:
    text = KEY.serialize()
    assert parse_static_key(text, "ta.key") == KEY
    assert len(text.splitlines()) == 21
    assert all(len(line) == 32 for line in text.splitlines()[4:20])


def test_other_line_breaks_and_text_around_the_key_are_accepted() -> None:
    digits = KEY.octets.hex().upper()
    begin, end = "-----BEGIN OpenVPN Static key V1-----", "-----END OpenVPN Static key V1-----"
    for text in (
        f"# comment\n{begin}\n{digits}\n{end}\ntrailing",
        f"{begin}\r\n{digits[:7]}\r\n  {digits[7:400]}\r\n\r\n{digits[400:]}\r\n{end}\r\n",
    ):
        assert parse_static_key(text, "inline") == KEY


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", None, "BEGIN"),
        (KEY.serialize().replace("END", "FIN"), 21, "hex"),
        ("\n".join(KEY.serialize().splitlines()[:-1]), None, "cut off"),
        ("\n".join(KEY.serialize().splitlines()[:10] + KEY.serialize().splitlines()[11:]), 4, "480"),
        (KEY.serialize().replace("0f10", "0g10", 1).replace("00010203", "0001020z", 1), 5, "hex"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(text: str, line: int | None, word: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_static_key(text, "ta.key")
    assert (error.value.file, error.value.line, error.value.code) == ("ta.key", line, "static_key")
    assert word in error.value.reason


def test_the_four_slots_are_in_the_order_of_the_file() -> None:
    assert KEY.cipher0 == bytes(range(64))
    assert KEY.hmac0 == bytes(range(64, 128))
    assert KEY.cipher1 == bytes(range(128, 192))
    assert KEY.hmac1 == bytes(range(192, 256))


def test_secrets_do_not_show() -> None:
    assert repr(KEY) == "StaticKey()"


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="255"):
        StaticKey(bytes(255))


def test_generate_asks_for_256_octets() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    assert StaticKey.generate(random_bytes) == StaticKey(bytes(256))
    assert asked == [256]
