"""Targets of what comes before frames: heads of requests, handshakes, and what proxies say."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable

import h11

from tests.fuzz.inputs import cut, split
from trioroom._core.networks import Networks, parse_address
from trioroom._wire.credentials import token_of
from trioroom._wire.forwarded import FORWARDED, X_FORWARDED_FOR, Forwarding
from trioroom._wire.handshake import Acceptance, Agreements, accept
from trioroom._wire.http import HeadParser, Request, encode_response, is_host, length_of_body
from trioroom._wire.proxy_protocol import MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderParser
from trioroom.errors import HandshakeError, RemoteProtocolError

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
START = (
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
).encode()
BOUNDS = ((16_384, 8_192, 64), (200, 50, 4), (90, 90, 64), (1_000, 20, 2))
SUBPROTOCOLS = ("trioroom.v1.json", "trioroom.v1.msgpack")
ORIGINS = (None, None, (), ("*",), ("https://example.com", "null", "http://[::1]:8000"))
SCHEMES = (None, "http", "https")
HOSTS = (None, "example.com", "example.com:8443")
ANSWER = re.compile(
    r"HTTP/1\.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    r"Sec-WebSocket-Accept: (?P<key>[A-Za-z0-9+/]{27}=)\r\n"
    r"(?:Sec-WebSocket-Protocol: (?P<subprotocol>[a-z0-9.]+)\r\n)?"
    r"(?:Sec-WebSocket-Extensions: (?P<extensions>permessage-deflate[a-z0-9_=; ]+)\r\n)?\r\n"
)


# -- heads -----------------------------------------------------------------------------------------


def http(data: bytes) -> None:
    """Any bytes are a request, a part of one or refused, however they are cut; and h11 reads no other request."""
    (flags, how), stream = split(data, 2)
    bounds = BOUNDS[flags & 3]
    request, trailing = read_head([stream], bounds)
    assert read_head(cut(stream, how), bounds) == (request, trailing)
    if not isinstance(request, Request):
        return
    assert stream.endswith(trailing)
    assert read_head([written(request)], BOUNDS[0])[0] == request
    check_h11(request, stream)
    request.to_keep()
    for ask in (token_of, lambda request: length_of_body(request, 1_000)):
        try:
            ask(request)
        except HandshakeError as exc:
            check_refusal(exc, 400, 411, 413)


def read_head(chunks: Iterable[bytes], bounds: tuple[int, int, int]) -> tuple[Request | str | None, bytes]:
    """The request and what follows it; ``refused`` or None where there is none."""
    parser, request = HeadParser(*bounds), None
    trailing = b""
    for chunk in chunks:
        if request is not None:
            trailing += chunk
            continue
        try:
            request = parser.feed(chunk)
        except HandshakeError as exc:
            check_refusal(exc, 400, 414, 431, 505)
            return "refused", b""
        assert len(parser._buffer) < bounds[0]
        trailing = parser.trailing
    return request, trailing


def check_refusal(refusal: HandshakeError, *allowed: int) -> None:
    """It can be said to who is refused, in one answer, and does not repeat all that was sent."""
    assert refusal.status in allowed
    answer = encode_response(refusal.status, f"{refusal}\n".encode(), headers=refusal.headers)
    assert answer.startswith(f"HTTP/1.1 {refusal.status} ".encode())
    assert len(answer) < 2_000


def written(request: Request) -> bytes:
    """The head once more."""
    lines = [f"{request.method} {request.target} HTTP/{request.version}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def check_h11(request: Request, stream: bytes) -> None:
    """Another parser reads no other request from the same bytes; it may refuse them."""
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(stream)
    try:
        event = theirs.next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode()) == (request.method, request.target)
    assert event.http_version.decode() == request.version
    assert [(name.decode(), value.decode("latin-1")) for name, value in event.headers] == list(request.headers)


# -- handshakes --------------------------------------------------------------------------------------


def handshake(data: bytes) -> None:
    """Any head is accepted, with an answer of the one right form, or refused; who asks alike gets the same answer.

    Most inputs are headers that follow those of a proper handshake. What follows a NUL byte is another peer's.
    """
    (flags, choice), heads = split(data, 2)
    first, _, second = heads.partition(b"\0")
    if not flags & 1:
        first, second = (START + lines.removesuffix(b"\r\n") + b"\r\n\r\n" for lines in (first, second or first))
        first, second = (head.replace(b"\r\n\r\n\r\n", b"\r\n\r\n") for head in (first, second))
    if flags & 2:
        second = first.replace(KEY.encode(), base64.b64encode(first[:16].ljust(16)))
    asking = Asking(flags >> 2, choice)
    one, other = asking.ask(first), asking.ask(second)
    agreements = Agreements(authenticates=bool(flags & 0x80))
    if one is None:
        return
    agreements.note(first, agreements.to_keep(*one), one[1])
    recalled = agreements.recall(second)
    if recalled is not None:
        assert other is not None, "let in unseen, and refused by who looks"
        assert recalled == (agreements.to_keep(*other), other[1])
        assert not other[0].is_own, "somebody's credentials were kept for others"


class Asking:
    """A server with settings of one kind."""

    def __init__(self, flags: int, choice: int) -> None:
        self.deflate = bool(flags & 1)
        self.origins = ORIGINS[choice % len(ORIGINS)]
        self.scheme = SCHEMES[choice >> 3 & 7 if choice >> 3 & 7 < len(SCHEMES) else 0]
        self.host = HOSTS[choice >> 6 if choice >> 6 < len(HOSTS) else 0]

    def ask(self, head: bytes) -> tuple[Request, Acceptance] | None:
        """What is agreed on, if anything is."""
        request, _ = read_head([head], BOUNDS[0])
        if not isinstance(request, Request):
            return None
        try:
            acceptance = accept(
                request,
                subprotocols=SUBPROTOCOLS,
                deflate=self.deflate,
                allowed_origins=self.origins,
                scheme=self.scheme,
                host=self.host,
            )
        except HandshakeError as exc:
            check_refusal(exc, 400, 403, 405, 426, 505)
            return None
        self._check(request, acceptance)
        return request, acceptance

    def _check(self, request: Request, acceptance: Acceptance) -> None:
        answer = ANSWER.fullmatch(acceptance.response.decode("ascii"))
        assert answer is not None
        (key,) = request.values("sec-websocket-key")
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert answer["key"] == base64.b64encode(digest).decode()
        assert len(base64.b64decode(key)) == 16
        assert answer["subprotocol"] == acceptance.subprotocol
        assert acceptance.subprotocol in (None, *SUBPROTOCOLS)
        assert answer["extensions"] == (acceptance.deflate and acceptance.deflate.response)
        assert acceptance.deflate is None or self.deflate
        if self.origins == ():
            assert request.header("origin") is None


# -- proxies -----------------------------------------------------------------------------------------


def proxy_protocol(data: bytes) -> None:
    """Any bytes are a header, a part of one or refused, however they are cut; nothing that follows is taken."""
    (how,), stream = split(data, 1)
    whole = read_proxy_header([stream])
    assert read_proxy_header(cut(stream, how)) == whole
    header, taken = whole
    if isinstance(header, ProxyHeader):
        assert taken <= MAX_HEADER_BYTES
        assert read_proxy_header([stream[:taken] + b"more"]) == whole
        assert header.source is None or parse_address(header.source) == header.source


def read_proxy_header(chunks: Iterable[bytes]) -> tuple[ProxyHeader | str | None, int]:
    """The header, and how long it is; ``refused`` or None where there is none."""
    parser, taken = ProxyHeaderParser(), 0
    for chunk in chunks:
        try:
            header = parser.feed(chunk)
        except RemoteProtocolError:
            return "refused", 0
        taken += parser.taken
        assert parser.taken <= len(chunk)
        assert len(parser._buffer) <= 2 * MAX_HEADER_BYTES
        if header is not None:
            return header, taken
    return None, taken


PROXY, CLIENT = "10.0.0.1", "198.51.100.7"
TRUSTED = Networks(("10.0.0.0/8", "fd00::/8"))


def forwarded(data: bytes) -> None:
    """Whatever a peer has invented, the address is one, the proxy's own word counts, and a short way tells the same."""
    (flags,), lines = split(data, 1)
    forwarding = Forwarding(TRUSTED, FORWARDED if flags & 1 else X_FORWARDED_FOR)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + lines.removesuffix(b"\r\n") + b"\r\n\r\n"
    request, _ = read_head([head], BOUNDS[0])
    if not isinstance(request, Request):
        return
    read = forwarding.read(request, PROXY)
    assert read.address is not None
    assert parse_address(read.address) == read.address
    ipaddress.ip_address(read.address)
    assert read.scheme in (None, "http", "https")
    assert read.host is None or is_host(read.host)
    told = ("Forwarded", f"for={CLIENT}") if flags & 1 else ("X-Forwarded-For", CLIENT)
    invented = Request("GET", "/", "/", "", (*request.headers, (told[0].lower(), told[1])))
    # A quote that a client has left open makes all of RFC 7239's header void.
    assert forwarding.read(invented, PROXY).address in ((CLIENT, PROXY) if flags & 1 else (CLIENT,))
    check_short_way(forwarding, head)


def check_short_way(forwarding: Forwarding, head: bytes) -> None:
    """What is cut out of a head tells the address that reading all of it does, or is known not to."""
    rest, told = forwarding.cut(head)
    request, _ = read_head([head], BOUNDS[0])
    assert isinstance(request, Request)
    if not forwarding.was_cut(request, told):
        return
    assert forwarding.client(PROXY, told) == forwarding.read(request, PROXY).address
    shorter, _ = read_head([rest], BOUNDS[0])
    assert shorter == forwarding.strip(request)


TARGETS = (http, handshake, proxy_protocol, forwarded)
