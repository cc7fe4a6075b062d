"""HTTP/1.1 heads: one request in, one response out (RFC 9112).

The head is collected whole and then parsed in one go, so that how it was cut into reads cannot
matter. What two parsers could read differently (bare CR or LF, folded lines, control bytes, body
framing) is refused rather than guessed at: a proxy before us may have guessed otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote

import attrs
import httptools

from trioroom.errors import HandshakeError

_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"
_TLS_HANDSHAKE = 0x16  # content type, the first byte of a TLS connection (RFC 8446 §5.1)
_SHOWN = 80  # bytes of a wrong value that an error message repeats

# Besides control bytes: 0x85, which many a text function takes for the end of a line.
_BAD_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85]|(?<!\r)\n|\r(?=[^\n])|\n[ \t]")
_PLAIN_BYTES = bytes(byte for byte in range(256) if byte in b"\t\r\n" or (byte >= 0x20 and byte not in b"\x7f\x85"))
_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9]\.[0-9])")
_AUTHORITY_PREFIX = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_CREDENTIALS = frozenset(("authorization", "cookie"))
_OWN = _CREDENTIALS | {"sec-websocket-key"}  # headers no two peers have in common
_LENGTH = re.compile(r"[0-9]{1,18}")
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")


@attrs.frozen(repr=False)
class Request:
    """The head of one HTTP request. Its `repr` shows neither values of headers nor the query."""

    method: str
    """As sent, such as ``GET``."""
    target: str
    """As sent, such as ``/chat/a%20b?token=1``."""
    path: str
    """The target's path, percent-decoded as UTF-8."""
    query: str
    """What follows the target's first ``?``, not decoded; empty if there is none."""
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, values decoded as Latin-1 without white space around them; in order, repeats kept."""
    version: str = "1.1"
    """HTTP's version: ``1.1`` or ``1.0``."""

    def __repr__(self) -> str:
        # It gets into logs by many ways, and what it holds may be a token, in whichever header an application has it.
        names = ", ".join([name for name, _ in self.headers])
        query = " with a query" if self.query else ""
        return f"<Request {self.method} {self.path!r}{query}, headers {names or 'none'}>"

    def header(self, name: str) -> str | None:
        """The first value of header ``name``, in any case; None if there is none."""
        name = name.lower()
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def values(self, name: str) -> tuple[str, ...]:
        """All values of header ``name``, one for each line."""
        name = name.lower()
        return tuple([value for key, value in self.headers if key == name])

    def tokens(self, name: str) -> tuple[str, ...]:
        """The elements of header ``name``, a comma-separated list, in lower case."""
        return tuple([token.lower() for token in split_list(self.values(name))])

    def to_keep(self, *, own: bool | None = None) -> Request:
        """What a connection keeps of it: not the handshake's key, and one object for all peers that ask alike.

        Those are most where there are many, and a request takes half a kilobyte. Who brings credentials asks like
        nobody else.

        Args:
            own: whether it may bring some; by default `is_own`.
        """
        headers = tuple([pair for pair in self.headers if pair[0] != "sec-websocket-key"])
        kept = self if len(headers) == len(self.headers) else attrs.evolve(self, headers=headers)
        return kept if (kept.is_own if own is None else own) else _shared(kept)

    @property
    def is_own(self) -> bool:
        """Whether no other peer asks like this one, as far as can be seen: it may bring credentials."""
        return bool(self.query) or not _CREDENTIALS.isdisjoint([name for name, _ in self.headers])

    def has_only(self, names: frozenset[str]) -> bool:
        """Whether it has no headers but those of ``names``, and no query."""
        return not self.query and names.issuperset([name for name, _ in self.headers])

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asks for WebSocket. Whether it does so properly is for `accept` to say."""
        return "websocket" in self.tokens("upgrade")


@lru_cache(maxsize=256)
def _shared(request: Request) -> Request:
    """The first of those that are equal to it, as far as they came lately."""
    return request


def split_list(values: Sequence[str]) -> list[str]:
    """The elements of a header that is a comma-separated list, over all its lines (RFC 9110 §5.6.1)."""
    return [token for value in values for element in value.split(",") if (token := element.strip(" \t"))]


class HeadParser:
    """Reads the head of one request. Done with after it has returned a request or raised."""

    def __init__(
        self, max_head_bytes: int = 16_384, max_request_line_bytes: int = 8_192, max_headers: int = 64
    ) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_request_line_bytes = max_request_line_bytes
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._has_request_line = False
        self.trailing = b""
        """What came after the head."""

    def feed(self, data: bytes) -> Request | None:
        """The request, once ``data`` completes its head.

        Raises:
            HandshakeError: 400 for a malformed head or one that announces a body, 414 or 431 for
                one over the bounds, 505 for another version of HTTP. What is wrong in two ways may
                be refused for either of them, depending on how it arrives.

        Time over all calls is linear in the bytes fed.
        """
        seen = len(self._buffer)
        self._buffer += data
        end = self._buffer.find(_HEAD_END, max(seen - 3, 0))
        size = len(self._buffer) if end < 0 else end + len(_HEAD_END)
        # Not left until the head is whole: what is wrong may mean that its end never comes.
        self._check_request_line(seen, size)
        self._check_bytes(seen, size)
        if size > self._max_head_bytes or (end < 0 and size == self._max_head_bytes):
            raise HandshakeError(
                431,
                f"request head exceeds max_head_bytes={self._max_head_bytes}; send fewer or shorter headers",
            )
        if end < 0:
            return None
        self.trailing = bytes(self._buffer[size:])
        head = bytes(self._buffer[:size])
        self._buffer.clear()
        return _parse(head, self._max_headers)

    def _check_request_line(self, seen: int, size: int) -> None:
        if self._has_request_line:
            return
        end = self._buffer.find(_LINE_END, max(seen - 1, 0), size)
        self._has_request_line = end >= 0
        known = end if end >= 0 else size - 1  # the last byte may be the line's CR
        if known > self._max_request_line_bytes:
            raise HandshakeError(
                414,
                f"request line exceeds max_request_line_bytes={self._max_request_line_bytes}; "
                "send a shorter path and query",
            )

    def _check_bytes(self, seen: int, size: int) -> None:
        if size and self._buffer[0] == _TLS_HANDSHAKE:
            raise HandshakeError(400, "TLS on a port without it; connect with ws:// or http://")
        start = max(seen - 1, 0)  # a CR or LF there may have been waiting for what comes next
        if not _has_only_lines(self._buffer[start:size]) and (bad := _BAD_BYTES.search(self._buffer, start, size)):
            raise HandshakeError(
                400,
                f"byte {bad[0][0]:#04x} at {bad.start()} of the request head is out of place; "
                "end lines with CR LF, fold none and send no control bytes",
            )


def _has_only_lines(text: bytearray) -> bool:
    """Whether ``text`` is plain lines, in a tenth of the time of a search for what is not; False is no verdict."""
    lines = text.count(_LINE_END)
    return (
        text.count(b"\r") == lines == text.count(b"\n")
        and b"\n " not in text
        and b"\n\t" not in text
        and not text.translate(None, _PLAIN_BYTES)
    )


def _parse(head: bytes, max_headers: int) -> Request:
    line = head[: head.index(_LINE_END)]
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HandshakeError(400, f"request line {line[:_SHOWN]!r} is malformed; send 'GET /path HTTP/1.1'")
    method, target, version = (sys.intern(group.decode()) for group in match.groups())
    if version not in ("1.0", "1.1"):
        raise HandshakeError(505, f"HTTP/{version} is not spoken here; send the request as HTTP/1.1")
    count = head.count(_LINE_END) - 2  # the request line's and the blank line's
    if count > max_headers:
        raise HandshakeError(431, f"{count} headers exceed max_headers={max_headers}; send fewer")
    headers = _parse_headers(head)
    request = Request(method, target, *split_target(target), headers, version)
    _check_host(request)
    if request.method in ("GET", "HEAD"):  # others are refused for what they are (405), body or not
        _check_no_body(request)
    return request


class _Headers:
    """Collects what httptools calls back with."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        key = sys.intern(name.decode("ascii").lower())
        text = value.strip(b" \t").decode("latin-1")
        # A connection keeps its request: what browsers of one kind all send is kept once.
        self.found.append((key, text if key in _OWN else sys.intern(text)))


def _parse_headers(head: bytes) -> tuple[tuple[str, str], ...]:
    headers = _Headers()
    try:
        httptools.HttpRequestParser(headers).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # how httptools says that the head is over and something else than HTTP follows
    except httptools.HttpParserError as exc:
        raise HandshakeError(400, f"request is not HTTP ({exc}); see RFC 9112 for its form") from exc
    return tuple(headers.found)


def split_target(target: str) -> tuple[str, str]:
    """Path, percent-decoded, and query of a request target.

    Raises:
        HandshakeError: 400, it is neither a path nor a URL, or its path is not UTF-8.
    """
    prefix = _AUTHORITY_PREFIX.match(target)  # a proxy may send the whole URL (RFC 9112 §3.2.2)
    path, _, query = target[prefix.end() if prefix else 0 :].partition("?")
    if prefix and not path:
        path = "/"
    if "#" in target or not (path.startswith("/") or target == "*"):
        raise HandshakeError(400, f"request target {target[:_SHOWN]!r} is malformed; send a path such as /chat")
    try:
        return unquote(path, errors="strict"), query
    except UnicodeDecodeError as exc:
        raise HandshakeError(
            400, f"path {path[:_SHOWN]!r} is not UTF-8 once decoded; percent-encode its UTF-8 bytes"
        ) from exc


def is_host(text: str) -> bool:
    """Whether ``text`` may be the value of ``Host``."""
    return _HOST.fullmatch(text) is not None


def _check_host(request: Request) -> None:
    hosts = request.values("host")
    if len(hosts) > 1 or (not hosts and request.version == "1.1"):
        raise HandshakeError(400, f"request has {len(hosts)} Host headers; send exactly one")
    if hosts and not is_host(hosts[0]):
        raise HandshakeError(400, f"Host {hosts[0][:_SHOWN]!r} is malformed; send it as host or host:port")
    whole = _AUTHORITY_PREFIX.match(request.target)
    if whole and hosts and whole[0].partition("://")[2].lower() != hosts[0].lower():
        # RFC 9112 §3.2.2 would have us take the target's; a proxy before us may have gone by the other.
        raise HandshakeError(400, f"Host {hosts[0][:_SHOWN]!r} is not the target's; send them alike")


def _check_no_body(request: Request) -> None:
    lengths = request.values("content-length")
    if request.values("transfer-encoding") or any(length.strip("0") for length in lengths):
        raise HandshakeError(400, "request announces a body and none is read here; send no body")


def length_of_body(request: Request, limit: int) -> int:
    """Bytes of the body that ``request`` announces; 0 if it has none.

    Raises:
        HandshakeError: 400, its length cannot be told for sure; 411, it is sent in chunks; 413, it is over ``limit``.
    """
    if request.values("transfer-encoding"):
        raise HandshakeError(411, "a body in chunks is not read here; send Content-Length")
    lengths = request.values("content-length")
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise HandshakeError(400, f"Content-Length is {', '.join(lengths)[:_SHOWN]!r}; send it once, in digits")
    length = int(lengths[0])
    if length > limit:
        raise HandshakeError(413, f"a body of {length} bytes exceeds max_request_bytes={limit}; send less at a time")
    return length


def encode_response(
    status: int,
    body: bytes = b"",
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Sequence[tuple[str, str]] = (),
    head_only: bool = False,
) -> bytes:
    """A whole response, after which the connection closes.

    Args:
        status: a final status, such as 200; one that forbids a body (204, 304) is not meant here.
        body: what is served.
        content_type: the body's, never guessed at by the browser.
        headers: further ones.
        head_only: leave the body out, as the answer to HEAD does; its length is told all the same.
    Raises:
        ValueError: a header holds a line break or a character that is not Latin-1.
    """
    upgrades = any(name.lower() == "upgrade" for name, _ in headers)
    fields = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Connection", "close, Upgrade" if upgrades else "close"),  # Upgrade is hop-by-hop (RFC 9110 §7.8)
        ("X-Content-Type-Options", "nosniff"),
        *headers,
    )
    head = encode_head(status, fields)
    return head if head_only else head + body


def without_body(response: bytes) -> bytes:
    """The head of ``response``, as the answer to HEAD has it."""
    return response[: response.index(_HEAD_END) + len(_HEAD_END)]


def encode_head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Status line, ``headers`` and the blank line.

    Raises:
        ValueError: a header holds a line break or a character that is not Latin-1.
    """
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"header {line!r} holds a line break; take it out")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
