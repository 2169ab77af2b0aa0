"""Fuzz target: PUSH_REPLY messages, one on each line."""

from __future__ import annotations

from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.packets.push import PushReplyAssembler, parse_pushed_options, serialize_push_reply
from bridged.protocol.text import decode_text


def one_input(data: bytes) -> None:
    assembler = PushReplyAssembler()
    for line in data.split(b"\n"):
        try:
            options = assembler.add(decode_text(line))
        except RemoteProtocolError:
            continue
        if options is None:
            continue
        pushed = parse_pushed_options(options)
        repr(pushed).encode()
        assert pushed.peer_id is None or 0 <= pushed.peer_id <= 0xFFFFFF
        try:
            messages = serialize_push_reply(options)
        except ConfigurationError:
            continue
        again = PushReplyAssembler()
        results = [again.add(message) for message in messages]
        assert results.pop() == options
        assert not any(results)
        assert all(len(message.encode()) < 1024 for message in messages)
