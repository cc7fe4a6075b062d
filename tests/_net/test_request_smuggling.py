"""Requests that two parsers may read differently: a proxy before us sees one, and we would see another behind it.

Each is sent with a whole request hidden in it or behind it. Whichever way it is refused, exactly one answer must come,
nothing hidden may be served, and the connection must end there, so that what is left of it is nobody's request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import trioroom
from trioroom._net.endpoints import ReadBody
from trioroom._wire.http import Request, encode_response

if TYPE_CHECKING:
    from tests._net.conftest import Lobby

KEY = "correct-horse-battery"
HIDDEN = f"POST /hidden HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 0\r\n\r\n".encode()
IN_A_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
CHUNKED, LENGTH = "Transfer-Encoding: chunked", f"Content-Length: {len(HIDDEN)}"
UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


def head(*lines: str, first: str, host: str | None = "Host: test") -> bytes:
    of_all = [first, *([host] if host else []), f"Authorization: Bearer {KEY}", *lines, "", ""]
    return "\r\n".join(of_all).encode("latin-1")


def get(*lines: str, target: str = "/healthz", host: str | None = "Host: test") -> bytes:
    return head(*lines, first=f"GET {target} HTTP/1.1", host=host)


def post(*lines: str) -> bytes:
    return head(*lines, first="POST /open HTTP/1.1")


def upgrade(*lines: str) -> bytes:
    return head(*UPGRADE, *lines, first="GET /echo/a HTTP/1.1")


ODD_CHUNKED = [
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding:  chunked \t",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: , chunked",
    'Transfer-Encoding: "chunked"',
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding\n: chunked",
    "Transfer-Encoding:\n chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked\x00",
    "Transfer\x00-Encoding: chunked",
    "Transfer-Encoding\xa0: chunked",
]
ODD_LENGTHS = [
    "+5", "-5", "0x5", "5.0", "5 5", "5,5", "5, 6", "5;q=1", '"5"', "", " ", "05\x00", "\x0b5", "\xb2", "9" * 30
]  # fmt: skip

FORMS: dict[str, bytes] = {
    **{f"GET with {line!r}": get(line) + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"POST with {line!r}": post(line) + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"handshake with {line!r}": upgrade(line) + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"CL.TE with {line!r}": post(LENGTH, line) + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"TE.CL with {line!r}": post(line, "Content-Length: 4") + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"TE.TE with {line!r}": post(CHUNKED, line) + IN_A_CHUNK for line in ODD_CHUNKED},
    **{f"GET of length {value!r}": get(f"Content-Length: {value}") + HIDDEN for value in ODD_LENGTHS},
    **{f"POST of length {value!r}": post(f"Content-Length: {value}") + HIDDEN for value in ODD_LENGTHS},
    "GET with a body": get(LENGTH) + HIDDEN,
    "handshake with a body": upgrade(LENGTH) + HIDDEN,
    "two lengths": post("Content-Length: 0", LENGTH) + HIDDEN,
    "two lengths, the other way": post(LENGTH, "Content-Length: 0") + HIDDEN,
    "two lengths, one of them in another case": post("content-length: 0", "CONTENT-LENGTH: 5") + HIDDEN,
    "two lengths that are alike": post(LENGTH, LENGTH) + HIDDEN,
    "length with a space before its colon": post(f"{LENGTH.replace(':', ' :')}") + HIDDEN,
    "length in a folded line": post("X: y", f" {LENGTH}") + HIDDEN,
    "length in a folded value": post("Content-Length:\r\n 5") + HIDDEN,
    "hidden behind a bare LF": get("X: y\n\n" + HIDDEN.decode()),
    "hidden behind a bare CR": get("X: y\r\r" + HIDDEN.decode()),
    "hidden behind a CR CR LF": get("X: y\r\r\n\r\n" + HIDDEN.decode()),
    "hidden behind NEL": get("X: y\x85\x85" + HIDDEN.decode()),
    "NUL in a name": get("X\x00: y") + HIDDEN,
    "NUL in a value": get("X: y\x00") + HIDDEN,
    "line without a colon": get("X") + HIDDEN,
    "line without a name": get(": y") + HIDDEN,
    "name with a space": get("X Y: z") + HIDDEN,
    "space before the first header": get(host=" Host: test") + HIDDEN,
    "two hosts": get("Host: other") + HIDDEN,
    "two hosts that are alike": get("host: test") + HIDDEN,
    "two hosts in one line": get(host="Host: test, other") + HIDDEN,
    "no host": get(host=None) + HIDDEN,
    "host with a user": get(host="Host: test@other") + HIDDEN,
    "host with a path": get(host="Host: test/other") + HIDDEN,
    "target of another host": get(target="http://other/healthz") + HIDDEN,
    "target of another port": get(target="http://test:81/healthz") + HIDDEN,
    "target with a user": get(target="http://a@test/healthz") + HIDDEN,
    "target with a fragment": get(target="/healthz#x") + HIDDEN,
    "target with a space": get(target="/health z") + HIDDEN,
    "request line with a tab": head(first="GET\t/healthz HTTP/1.1") + HIDDEN,
    "request line with two spaces": head(first="GET /healthz  HTTP/1.1") + HIDDEN,
    "request line with a bare LF": b"GET /healthz HTTP/1.1\nHost: test\r\n\r\n" + HIDDEN,
    "empty line first": b"\r\n" + get() + HIDDEN,
    "HTTP/0.9": b"GET /healthz\r\n\r\n" + HIDDEN,
    "HTTP/1.1 in another case": head(first="GET /healthz http/1.1") + HIDDEN,
    "HTTP/1.10": head(first="GET /healthz HTTP/1.10") + HIDDEN,
    "HTTP/2": head(first="GET /healthz HTTP/2.0") + HIDDEN,
    "CONNECT": head(first="CONNECT test:80 HTTP/1.1") + HIDDEN,
    "head that is too large": get("X: " + "y" * 16_384) + HIDDEN,
    "request line that is too long": get(target="/" + "a" * 8_192) + HIDDEN,
    "too many headers": get(*["X: y"] * 64) + HIDDEN,
}


@attrs.define
class Site:
    """A server with endpoints that note what they get."""

    server: trioroom.Server
    bodies: list[bytes] = attrs.Factory(list)
    hidden: int = 0

    async def exchange(self, request: bytes) -> bytes:
        """All that comes back; the peer keeps its side open and waits for more."""
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve_stream, theirs)
            await ours.send_all(request)
            return b"".join([bytes(data) async for data in ours])


@pytest.fixture
async def site(lobby: Lobby) -> AsyncIterator[Site]:
    async with trioroom.open_server(lobby.app, port=0, api_key=KEY) as server:
        site = Site(server)

        async def note(request: Request, read_body: ReadBody) -> bytes:
            site.bodies.append(await read_body())
            return encode_response(200)

        async def serve_hidden(request: Request, read_body: ReadBody) -> bytes:
            site.hidden += 1
            return encode_response(200)

        endpoints = server._greeter._http._endpoints
        endpoints.add("/open", note, methods=("POST",))
        endpoints.add("/hidden", serve_hidden, methods=("GET", "POST"))
        yield site


@pytest.mark.parametrize("form", FORMS)
async def test_what_may_be_read_in_two_ways_is_refused_and_ends_the_connection(
    site: Site, lobby: Lobby, form: str, autojump_clock: MockClock
) -> None:
    answer = await site.exchange(FORMS[form])
    assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 505"), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close" in answer
    assert not site.bodies
    assert not site.hidden
    assert not lobby.joined


async def test_what_follows_a_proper_request_is_nobody_s(site: Site, autojump_clock: MockClock) -> None:
    for request, body in ((get(), []), (post(LENGTH) + HIDDEN, [HIDDEN]), (post("Content-Length: 0"), [HIDDEN, b""])):
        answer = await site.exchange(request + HIDDEN)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"\r\nConnection: close\r\n" in answer
        assert site.bodies == body
    assert not site.hidden


async def test_hidden_request_would_be_served_if_it_came_openly(site: Site, autojump_clock: MockClock) -> None:
    assert (await site.exchange(HIDDEN)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert site.hidden == 1


@pytest.mark.parametrize(
    "name", ["Origin", "X-Forwarded-For", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Authorization"]
)
async def test_no_header_is_ever_copied_into_an_answer(site: Site, name: str, autojump_clock: MockClock) -> None:
    """So none can break it apart: a value that is echoed is shown as Python would write it, or is one of ours."""
    answer = await site.exchange(upgrade(f"{name}: a, injected\tX-Injected: yes\xe9"))
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert not any(b"njected" in line for line in lines)
