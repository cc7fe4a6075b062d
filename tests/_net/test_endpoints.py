"""What an API key opens: who gets in, how bodies are read, and what goes wrong.

A stream in memory has no half-close, so the server lets each peer have a second to take its answer: of a virtual clock.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import trioroom
from trioroom._core.api_key import ApiKey
from trioroom._net.endpoints import Endpoints, ReadBody
from trioroom._wire.http import Request, encode_response
from trioroom.errors import HandshakeError

KEY = "correct-horse-battery"
BEARER = f"Bearer {KEY}"
OpenSite = Callable[..., AbstractAsyncContextManager["Site"]]


@attrs.define
class Site:
    """A server with endpoints that note what they get."""

    server: trioroom.Server
    bodies: list[bytes] = attrs.Factory(list)

    async def exchange(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer to a request with this head, until the server ends the connection."""
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve_stream, theirs)
            await ours.send_all(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            answer = b"".join([bytes(data) async for data in ours])
        head_of_answer, _, rest = answer.partition(b"\r\n\r\n")
        while head_of_answer.startswith(b"HTTP/1.1 100"):
            head_of_answer, _, rest = rest.partition(b"\r\n\r\n")
        return int(head_of_answer.split()[1]), rest

    async def add_endpoints(self, endpoints: Endpoints) -> None:
        async def echo(request: Request, read_body: ReadBody) -> bytes:
            body = await read_body()
            self.bodies.append(body)
            return encode_response(200, body)

        async def fail(request: Request, read_body: ReadBody) -> bytes:
            raise RuntimeError("a fault of ours")

        async def hang(request: Request, read_body: ReadBody) -> bytes:
            await trio.sleep_forever()

        endpoints.add("/echo", echo, methods=("GET", "HEAD", "POST"))
        endpoints.add("/fail", fail)
        endpoints.add("/hang", hang)
        endpoints.add("/tree/", echo)
        endpoints.add("/open", echo, public=True)


def post(length: int | str, *headers: str, key: str = BEARER) -> str:
    return "\n".join(
        ["POST /echo HTTP/1.1", "Host: test", f"Authorization: {key}", f"Content-Length: {length}", *headers]
    )


def get(path: str, authorization: str | None = BEARER, method: str = "GET") -> str:
    head = f"{method} {path} HTTP/1.1\nHost: test"
    return head if authorization is None else f"{head}\nAuthorization: {authorization}"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.fixture
def open_site() -> OpenSite:
    @asynccontextmanager
    async def open_site(api_key: str | None = KEY, **settings: float) -> AsyncIterator[Site]:
        chosen = trioroom.Settings(**settings)  # type: ignore[arg-type]  # mypy: a float is no int
        async with trioroom.open_server(trioroom.App(), port=0, settings=chosen, api_key=api_key) as server:
            site = Site(server)
            await site.add_endpoints(server._greeter._http._endpoints)
            yield site

    return open_site


async def test_key_opens(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site() as site:
        assert await site.exchange(get("/echo")) == (200, b"")
        assert await site.exchange(get("/echo", f"bearer  {KEY}")) == (200, b"")
        assert await site.exchange(get("/tree/deep/down")) == (200, b"")
        assert await site.exchange(post(5), b"hello") == (200, b"hello")


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", KEY, "Basic", "Basic !", basic("wrong")])
async def test_nothing_else_does_and_no_body_is_read(
    open_site: OpenSite, authorization: str | None, autojump_clock: MockClock
) -> None:
    async with open_site() as site:
        status, body = await site.exchange(get("/echo", authorization))
        assert status == 401
        assert body.endswith(b"; send Authorization: Bearer KEY\n")
        assert (await site.exchange(post(5, key=authorization or "none")))[0] == 401  # though the body never comes
        assert not site.bodies


@pytest.mark.parametrize("path", ["/%6fpen", "/o%70en", "/tree%2F", "/%74ree/", "/tree%2Fx", "http://test/%6fpen"])
async def test_path_counts_as_it_is_written(open_site: OpenSite, path: str, autojump_clock: MockClock) -> None:
    """A proxy that keeps operators' paths from the world may look at them before they are decoded."""
    async with open_site() as site:
        assert (await site.exchange(get(path)))[0] == 404
        assert (await site.exchange(get("/tree/%6fpen")))[0] == 200
        assert (await site.exchange(get("http://test/open", None)))[0] == 200


async def test_browser_may_show_the_key_as_password_but_not_to_change_things(
    open_site: OpenSite, autojump_clock: MockClock
) -> None:
    async with open_site() as site:
        assert (await site.exchange(get("/echo", basic(KEY))))[0] == 200
        assert (await site.exchange(post(2, key=basic(KEY)), b"{}"))[0] == 401  # a foreign page could have sent that
        assert site.bodies == [b""]


async def test_without_a_key_only_what_is_public_is_there(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site(api_key=None) as site:
        assert (await site.exchange(get("/echo")))[0] == 404
        assert (await site.exchange(get("/open", None)))[0] == 200


async def test_head_has_the_length_and_no_body(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site() as site:
        assert await site.exchange(get("/echo", method="HEAD")) == (200, b"")
        assert await site.exchange(get("/echo", None, method="HEAD")) == (401, b"")


async def test_method_is_checked(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site() as site:
        assert await site.exchange(get("/fail", method="DELETE")) == (
            405,
            b"DELETE means nothing here; send GET, HEAD\n",
        )


async def test_fault_is_logged_and_told_without_its_text(
    open_site: OpenSite, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_site() as site:
        assert await site.exchange(get("/fail")) == (500, b"this failed; the server's log tells more\n")
    assert "a fault of ours" in caplog.text


async def test_answer_has_a_deadline(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site(publish_timeout=3.0) as site:
        assert await site.exchange(get("/hang")) == (504, b"no answer within 8 s; the server is behind\n")
        assert trio.current_time() == pytest.approx(8.0, abs=1.5)


async def test_body_comes_in_any_pieces_with_what_follows_left_out(
    open_site: OpenSite, autojump_clock: MockClock
) -> None:
    async with open_site() as site:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.server.serve_stream, theirs)
            for byte in post(5).replace("\n", "\r\n").encode() + b"\r\n\r\nhello, and more":
                await ours.send_all(bytes([byte]))
            assert b"hello" in b"".join([bytes(data) async for data in ours])
    assert site.bodies == [b"hello"]


async def test_who_waits_for_continue_gets_it(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site() as site:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.server.serve_stream, theirs)
            await ours.send_all(post(5, "Expect: 100-continue").replace("\n", "\r\n").encode() + b"\r\n\r\n")
            assert await ours.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await ours.send_all(b"hello")
            assert b"HTTP/1.1 200 OK" in b"".join([bytes(data) async for data in ours])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (post(101), 413),
        (post("9" * 19), 400),
        (post("+5"), 400),
        (post("0x5"), 400),
        (post("5, 5"), 400),
        (post(5, "Content-Length: 5"), 400),
        (post(5, "Content-Length: 6"), 400),
        (post(5, "Transfer-Encoding: chunked"), 400),
        (post(5).replace("Content-Length: 5", "Transfer-Encoding: chunked"), 411),
        (post(5).replace("Content-Length: 5", "Transfer-Encoding: xchunked"), 400),
    ],
)
async def test_body_of_no_sure_length_is_refused(
    open_site: OpenSite, head: str, status: int, autojump_clock: MockClock
) -> None:
    async with open_site(max_request_bytes=100) as site:
        assert (await site.exchange(head, b"hello"))[0] == status
        assert not site.bodies


async def test_body_that_never_comes_is_given_up(open_site: OpenSite, autojump_clock: MockClock) -> None:
    async with open_site() as site:
        assert (await site.exchange(post(5), b"hell"))[0] == 408
        assert not site.bodies


async def test_reader_of_a_body_passes_on_its_refusals() -> None:
    async def refuse() -> bytes:
        raise HandshakeError(413, "too much")

    async def read(request: Request, read_body: ReadBody) -> bytes:
        return await read_body()

    endpoints = Endpoints(ApiKey(KEY), 1.0)
    endpoints.add("/", read)
    endpoint = endpoints.find("/anything")
    assert endpoint is not None
    answer = await endpoints.respond(endpoint, Request("GET", "/", "/", "", (("authorization", BEARER),)), refuse)
    assert answer.startswith(b"HTTP/1.1 413 ")
