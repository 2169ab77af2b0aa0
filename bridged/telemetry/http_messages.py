"""Requests and answers of the metrics server: one request a connection, heads of bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

HEAD_OCTETS_MAX: Final = 8192
PIECE_OCTETS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MetricsAnswer:
    """`headers` beside those that every answer has."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def text(status: HTTPStatus, words: str, headers: Mapping[str, str] | None = None) -> MetricsAnswer:
    """An answer of one line."""
    return MetricsAnswer(status, f"{words}\n".encode(), headers or {})


async def read_request(reader: asyncio.StreamReader) -> MetricsRequest | HTTPStatus:
    """Read the request's head; return it, or the status that refuses it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return HTTPStatus.BAD_REQUEST
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return MetricsRequest(words[0], words[1], headers)


async def write_answer(writer: asyncio.StreamWriter, answer: MetricsAnswer, more: Mapping[str, str]) -> None:
    """Write the answer; `more` are further headers."""
    headers = {
        "Server": "bridged",
        "Content-Type": "text/plain; charset=utf-8",
        **more,
        **answer.headers,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # A piece at a time: a slow reader holds one piece, not a copy of everything.
    writer.transport.set_write_buffer_limits(0)
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for start in range(0, len(answer.body), PIECE_OCTETS):
        writer.write(answer.body[start : start + PIECE_OCTETS])
        await writer.drain()
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
