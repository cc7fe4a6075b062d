"""From a URL to a WebSocket, over real sockets: proxies, TLS, refusals, and peers that are no servers of ours."""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trustme
from trio_websocket import wrap_server_stream

import trioroom
from tests.client.conftest import make_app, wait_state
from trioroom.client import Client
from trioroom.client.dialing import Proxy, Target, parse_proxy, parse_url
from trioroom.testing import open_test_server

DEADLINE = 20.0
Serve = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("ws://host", Target("host", 80, "/", False), "host"),
        ("wss://host/a?b=c", Target("host", 443, "/a?b=c", True), "host"),
        ("ws://host:443", Target("host", 443, "/", False), "host:443"),
        ("wss://[::1]:8000/x#y", Target("::1", 8000, "/x", True), "[::1]:8000"),
        ("WS://Host:80/", Target("host", 80, "/", False), "host"),
    ],
)
def test_url_says_where_to_connect(url: str, target: Target, authority: str) -> None:
    assert parse_url(url) == target
    assert target.authority == authority


@pytest.mark.parametrize(
    "url", ["http://host/", "host:80", "ws://", "ws:///path", "ws://ann:secret@host/", "ws://h:x/"]
)
async def test_what_is_no_url_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|port|Port"):
        parse_url(url)


def test_proxy_has_its_credentials_from_its_url() -> None:
    proxy = parse_proxy("http://ann:p%40ss@proxy:3128")
    assert proxy == Proxy("proxy", 3128, "Basic " + base64.b64encode(b"ann:p@ss").decode())
    assert "Basic" not in repr(proxy)
    assert parse_proxy("http://proxy") == Proxy("proxy", 80, None)
    with pytest.raises(ValueError, match="socks"):
        parse_proxy("socks5://proxy:1080")


@pytest.mark.parametrize(
    "wrong",
    [{"codec": "xml"}, {"max_inbox": 0}, {"max_pending": 0}, {"connect_timeout": 0}, {"proxy": "ftp://x"}],
)
async def test_wrong_options_are_errors_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"codec|positive|URL"):
        await trioroom.connect("ws://127.0.0.1/", **wrong).__aenter__()  # type: ignore[arg-type]  # on purpose


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A TCP server of the test's own; its port."""
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()
    await listener.aclose()


async def head_of(stream: trio.SocketStream) -> str:
    """Of an HTTP request."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    return head.decode()


def answering(answer: bytes, heads: list[str] | None = None) -> Serve:
    """Answers each request with the same bytes and closes."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            head = await head_of(stream)
            if heads is not None:
                heads.append(head)
            await stream.send_all(answer)

    return serve


async def test_handshake_says_who_asks() -> None:
    heads: list[str] = []
    async with listening(answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever", heads)) as port:
        url = f"ws://127.0.0.1:{port}/path?q=1"
        async with trioroom.connect(url, headers={"X-Tenant": "blue"}, user_agent="me/1", codec="msgpack") as client:
            closed = await wait_state(client, "closed")
            with pytest.raises(trioroom.HandshakeError, match="HTTP 403: never"):
                await client.wait_open()
    assert closed.error.status == 403
    lines = {line.lower() for line in heads[0].split("\r\n")}
    assert lines >= {
        "get /path?q=1 http/1.1", f"host: 127.0.0.1:{port}", "x-tenant: blue", "user-agent: me/1",
        "sec-websocket-protocol: trioroom.v1.msgpack",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "state", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "closed", trioroom.HandshakeError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "closed", trioroom.HandshakeError),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "waiting", trioroom.HandshakeError),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\ncut", "waiting", trioroom.ConnectionClosed),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "waiting",
            Exception,
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "waiting", trioroom.ConnectionClosed),
        (b"", "waiting", trioroom.ConnectionClosed),
    ],
)
async def test_what_is_no_server_of_ours_is_told(answer: bytes, state: str, error: type[Exception]) -> None:
    async with listening(answering(answer)) as port, trioroom.connect(f"ws://127.0.0.1:{port}/") as client:
        told = await wait_state(client, state)
        assert isinstance(told.error, error)
        assert str(told.error)


async def test_websocket_server_that_does_not_speak_v1_is_told() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            ws = await request.accept()
            await ws.aclose()

    async with listening(serve) as port, trioroom.connect(f"ws://127.0.0.1:{port}/chat") as client:
        closed = await wait_state(client, "closed")
        assert "does not speak trioroom.v1.json; is it trioroom?" in str(closed.error)


async def test_nobody_there_is_told_and_tried_again() -> None:
    async with listening(answering(b"")) as port:
        pass
    async with trioroom.connect(f"ws://127.0.0.1:{port}/") as client:
        with trio.fail_after(DEADLINE):
            waiting = await wait_state(client, "waiting")
    assert isinstance(waiting.error, OSError)


async def test_full_server_says_when_to_come_back() -> None:
    settings = trioroom.Settings(max_connections=1, drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0)
    async with open_test_server(make_app(), settings, tcp=True) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        with trio.fail_after(DEADLINE):
            async with trioroom.connect(url) as first:
                await first.wait_open()
                async with trioroom.connect(url) as second:
                    waiting = await wait_state(second, "waiting")
        assert waiting.error.status == 503
        asked = float(dict(waiting.error.headers)["retry-after"])
        assert asked <= waiting.after <= 2 * asked


@attrs.frozen
class Authority:
    """What TLS needs on both sides."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def authority() -> Authority:
    ca = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    ca.configure_trust(client)
    return Authority(server, client)


@asynccontextmanager
async def open_tls_server(authority: Authority) -> AsyncIterator[int]:
    settings = trioroom.Settings(drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0)
    with trio.fail_after(DEADLINE):
        opened = trioroom.open_server(make_app(), port=0, settings=settings, ssl_context=authority.server)
        async with opened as server:
            yield server.port


async def talk(client: Client) -> None:
    async with client.join("chat/a") as room:
        assert await room.call("hello") == ["hello", None]


async def test_tls_and_a_certificate_that_nobody_trusts(authority: Authority) -> None:
    async with open_tls_server(authority) as port:
        url = f"wss://localhost:{port}/"
        async with trioroom.connect(url, ssl_context=authority.client) as client:
            await talk(client)
        async with trioroom.connect(url) as client:
            waiting = await wait_state(client, "waiting")
            assert isinstance(waiting.error, ssl.SSLCertVerificationError)
            assert waiting.error.__cause__ is None, "else it is a ring, and who looks for the root finds no end"
        async with trioroom.connect(f"ws://127.0.0.1:{port}/") as client:  # and plain text to a TLS port
            assert (await wait_state(client, "waiting")).error is not None


# -- proxies ----------------------------------------------------------------------------------------


class ConnectProxy:
    """Tunnels, for whom has the password."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def serve(self, client: trio.SocketStream) -> None:
        async with client:
            head = await head_of(client)
            method, target, _ = head.split("\r\n")[0].split(" ")
            if method != "CONNECT" or "Proxy-Authorization: Basic YW5uOnNlY3JldA==" not in head:
                return await client.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            self.targets.append(target)
            host, _, port = target.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as server:
                await client.send_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, client, server, nursery.cancel_scope)
                    nursery.start_soon(_pump, server, client, nursery.cancel_scope)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass
    both.cancel()


async def test_through_a_proxy_with_and_without_tls(authority: Authority) -> None:
    proxy = ConnectProxy()
    async with (
        listening(proxy.serve) as port,
        open_test_server(make_app(), tcp=True) as server,
        open_tls_server(authority) as tls,
    ):
        through = f"http://ann:secret@127.0.0.1:{port}"
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/", proxy=through) as client:
            await talk(client)
        secure = trioroom.connect(f"wss://localhost:{tls}/", proxy=through, ssl_context=authority.client)
        async with secure as client:
            await talk(client)
        assert proxy.targets == [f"127.0.0.1:{server.port}", f"localhost:{tls}"]


async def test_proxy_that_refuses_closes_the_client_or_is_asked_again() -> None:
    async with listening(ConnectProxy().serve) as port:
        async with trioroom.connect("ws://host/", proxy=f"http://ann:guess@127.0.0.1:{port}") as client:
            closed = await wait_state(client, "closed")
            assert closed.error.status == 407
            assert "answered CONNECT with HTTP 407 Proxy Authentication Required" in str(closed.error)
    async with listening(answering(b"HTTP/1.1 503 No\r\nRetry-After: 3\r\n\r\n")) as port:
        async with trioroom.connect("ws://host/", proxy=f"http://127.0.0.1:{port}") as client:
            assert 3 <= (await wait_state(client, "waiting")).after <= 6


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 20"])
async def test_proxy_that_is_none_is_told(answer: bytes) -> None:
    async with listening(answering(answer)) as port:
        async with trioroom.connect("ws://host/", proxy=f"http://127.0.0.1:{port}") as client:
            waiting = await wait_state(client, "waiting")
            assert isinstance(waiting.error, ConnectionResetError)
            assert "the proxy 127.0.0.1" in str(waiting.error)


def test_token_in_a_url_is_in_no_error_and_no_repr() -> None:
    target = parse_url("ws://test/chat/a?token=s3cret")
    assert (target.resource, target.shown) == ("/chat/a?token=s3cret", "test/chat/a")
    assert "s3cret" not in repr(target)
    with pytest.raises(ValueError, match="is no URL") as refused:
        parse_url("http://test/chat/a?token=s3cret")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["socks5://user:s3cret@proxy:1080", "user:s3cret@proxy:1080"])
def test_password_in_the_url_of_a_proxy_is_in_no_error(url: str) -> None:
    with pytest.raises(ValueError, match="…@proxy:1080' is no URL of the kind http") as refused:
        parse_proxy(url)
    assert "s3cret" not in str(refused.value)


async def test_token_in_a_url_is_not_told_when_the_server_refuses_it(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(credentials: trioroom.Credentials) -> None:
        raise trioroom.AuthenticationRefused("nobody I know")

    caplog.set_level(logging.DEBUG)
    async with open_test_server(trioroom.App(authenticate=refuse), tcp=True) as server:
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/?token=s3cret") as client:
            with pytest.raises(trioroom.HandshakeError, match="HTTP 401: nobody I know") as refused:
                await client.wait_open()
            assert not refused.value.retry
    assert "s3cret" not in str(refused.value) + caplog.text


async def test_dial_of_ones_own_does_all_there_is_to_do() -> None:
    async def dial() -> trio.abc.Stream:
        raise OSError("never called")

    for wrong in ({"proxy": "http://127.0.0.1:1"}, {"ssl_context": ssl.create_default_context()}):
        with pytest.raises(ValueError, match="leave out proxy and ssl_context"):
            async with trioroom.connect("wss://test/", dial=dial, **wrong):
                pass
