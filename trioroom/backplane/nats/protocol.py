"""The protocol of NATS, without a socket: operations packed, and what the server sends parsed as it comes.

See https://docs.nats.io/reference/reference-protocols/nats-protocol: lines of text that end with CRLF, and after those
of messages a payload whose length the line tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from trioroom.backplane.supervision import LinkLost

MAX_LINE: Final = 1 << 16
"""Bytes; INFO is the longest, which names all servers of a cluster and takes a few kilobytes."""
MAX_MESSAGE: Final = (1 << 26) + MAX_LINE
"""Bytes; 64 MiB is the most that a server may be set to take, and it puts headers of its own before a stream's."""
MAX_SUBJECT: Final = 4_000
"""Bytes. A server closes the connection of who sends a line of more than 4,096, unless its configuration says otherwise
(``max_control_line``); the rest is for an inbox and the lengths."""
_MAX_TEXT: Final = MAX_SUBJECT + 100  # bytes
_OVERHEAD: Final = 256  # bytes, of one that is empty
_MESSAGES: Final = (b"MSG", b"HMSG")
_CONTROL: Final = frozenset((b"INFO", b"PING", b"PONG", b"+OK", b"-ERR"))


class BadProtocol(LinkLost):
    """What came is nothing that a NATS server sends."""

    def __init__(self, text: str) -> None:
        super().__init__(f"what answers there is no NATS server: {text}")


class Message:
    """What came for a subscription: of a subject, or the reply to a request. Nobody changes it."""

    __slots__ = ("_head", "_parsed", "payload", "reply", "sid", "subject")

    def __init__(self, subject: bytes, sid: int, reply: bytes | None, head: bytes, payload: bytes) -> None:
        self.subject = subject
        self.sid = sid
        """Of the subscription it came for, as we have numbered it."""
        self.reply = reply
        """The subject that an answer goes to, if the sender wants one."""
        self.payload = payload
        self._head = head
        self._parsed: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Message {self.subject!r} status={self.status} of {len(self.payload)} bytes>"

    @property
    def size(self) -> int:
        """In memory, about."""
        return len(self._head) + len(self.payload) + _OVERHEAD

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, as it is spelt; of those that are there twice the last. Parsed when first asked for."""
        if self._parsed is None:
            self._parsed = parse_headers(self._head)
        return self._parsed

    @property
    def status(self) -> int | None:
        """What the server says instead of a payload, such as 503: nobody is there to answer. None: a usual message."""
        number = self._head[8:12].strip()  # after NATS/1.0
        return int(number) if len(number) == 3 and number.isdigit() else None

    @property
    def description(self) -> str:
        """What goes with the status, for people; or nothing."""
        line = self._head.partition(b"\r\n")[0]
        return line[12:].strip().decode(errors="replace") if self.status is not None else ""


def parse_headers(head: bytes) -> Mapping[str, str]:
    """Those before a payload, by name."""
    headers: dict[str, str] = {}
    for line in head.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


@attrs.frozen
class Control:
    """What is no message: INFO, PING, PONG, +OK or -ERR, and what follows on the line."""

    word: bytes
    argument: bytes = b""

    @property
    def text(self) -> str:
        """What follows, for people and their logs: one line, of a subject and what is wrong with it at most."""
        text = self.argument[:_MAX_TEXT].decode(errors="replace").strip("'")
        return "".join(character if character.isprintable() else "?" for character in text)


Event: TypeAlias = Message | Control


class Parser:
    """`feed` it what comes, in any pieces; it holds on to one incomplete operation, which is bounded."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in the pieces
        self._needed = 1  # so many before another look is worth it: a large message is put together once

    def feed(self, data: bytes) -> list[Event]:
        """What is complete now, in its order.

        Raises:
            BadProtocol: it is no NATS, or beyond the bounds; of no use after that.
        """
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return []
        data = data if len(self._pieces) == 1 else b"".join(self._pieces)
        events: list[Event] = []
        end = self._parse(data, events)
        rest = data[end:]
        self._pieces, self._held = [rest] if rest else [], len(rest)
        return events

    def _parse(self, data: bytes, events: list[Event]) -> int:
        """Put what is complete into ``events``; where the rest begins."""
        start = 0
        while True:
            line_end = data.find(b"\r\n", start, start + MAX_LINE)
            if line_end < 0:
                if len(data) - start >= MAX_LINE:
                    raise BadProtocol(f"a line is longer than {MAX_LINE} bytes")
                self._needed = len(data) - start + 1
                return start
            parts = data[start:line_end].split()
            word = parts[0].upper() if parts else b""
            if word not in _MESSAGES:
                events.append(_control(word, data[start:line_end]))
                start = line_end + 2
                continue
            end = self._parse_message(data, line_end + 2, parts, events)
            if end > len(data):
                self._needed = end - start
                return start
            start = end

    def _parse_message(self, data: bytes, begin: int, parts: list[bytes], events: list[Event]) -> int:
        """Where it ends; beyond ``data`` if it is not complete."""
        try:
            if len(parts[0]) == len(b"MSG"):
                _, subject, sid, *reply, size = parts
                head, total = 0, int(size)
            else:
                _, subject, sid, *reply, head_size, size = parts
                head, total = int(head_size), int(size)
            number = int(sid)
            if len(reply) > 1 or not 0 <= head <= total:
                raise ValueError
        except ValueError:
            raise BadProtocol(f"{b' '.join(parts)[:80]!r} begins no message") from None
        if total > self._max_message:
            raise BadProtocol(f"a message has {total} bytes")
        end = begin + total
        if len(data) >= end + 2:
            if data[end : end + 2] != b"\r\n":
                raise BadProtocol("a message does not end where it should")
            split = begin + head
            events.append(Message(subject, number, reply[0] if reply else None, data[begin:split], data[split:end]))
        return end + 2


def _control(word: bytes, line: bytes) -> Control:
    if word not in _CONTROL:
        raise BadProtocol(f"it sent {line[:80]!r}")
    return Control(word, line[len(word) :].strip())


def pack_publication(subject: bytes, reply: bytes, head: bytes, payload: bytes) -> bytes:
    """PUB, or HPUB if there is a ``head``, which `pack_headers` makes."""
    if not head:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(head), len(head) + len(payload), head, payload)


def pack_headers(headers: Mapping[str, str] | None) -> bytes:
    """What stands before the payload; nothing for none.

    Raises:
        ValueError: a line break, which would begin another header.
    """
    if not headers:
        return b""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if any("\r" in line[:-2] or "\n" in line[:-2] for line in lines):
        raise ValueError("a header has a line break")
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def pack_subscription(subject: bytes, sid: int) -> bytes:
    """SUB."""
    return b"SUB %b %d\r\n" % (subject, sid)


def too_long(subject: bytes) -> str:
    """What is wrong with one beyond `MAX_SUBJECT`, and what to do."""
    return (
        f"subject of {len(subject)} bytes, as {subject[:40]!r}... is; {MAX_SUBJECT} are the most, where each byte of a "
        "name that is no letter, digit, _, - or / takes three; choose a shorter name"
    )


def pack_unsubscription(sid: int) -> bytes:
    """UNSUB, at once."""
    return b"UNSUB %d\r\n" % sid
