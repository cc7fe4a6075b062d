"""From a URL to a WebSocket: TCP, a proxy's CONNECT, TLS, and the opening handshake.

Whatever goes wrong on the way comes out as one of a few errors that tell whether another try may help: ``OSError``,
`HandshakeError` and `ConnectionClosed`.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import h11
import trio
import trio_websocket
from trio_websocket import WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError as WsprotoError

from trioroom._core.causes import root_of
from trioroom.closecodes import CloseCode
from trioroom.errors import ConnectionClosed, HandshakeError

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_READ_BYTES = 16 * 1024
_TOO_BIG = "Exceeded maximum message size: "  # what trio-websocket says when it closes by itself
_SHOWN_BYTES = 200  # of what a server says to a refusal

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_NONSENSE = (WsprotoError, h11.ProtocolError)  # trio-websocket lets those of the libraries below it through
BROKEN = (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, *_NONSENSE, *_GONE)
"""What comes out of trio-websocket, and of a stream under it, when a connection fails; see `explain`."""


@attrs.frozen
class Target:
    """Where a client connects to; made by `parse_url`."""

    host: str
    port: int
    resource: str = attrs.field(repr=False)
    """Path and query, which may have a token."""
    is_tls: bool

    @property
    def shown(self) -> str:
        """For people: without the query."""
        return self.authority + self.resource.partition("?")[0]

    @property
    def authority(self) -> str:
        """What stands in ``Host`` (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = _DEFAULT_PORTS["wss" if self.is_tls else "ws"]
        return host if self.port == default else f"{host}:{self.port}"


@attrs.frozen
class Proxy:
    """An HTTP proxy that is asked to CONNECT; made by `parse_proxy`."""

    host: str
    port: int
    authorization: str | None = attrs.field(repr=False)


def parse_url(url: str) -> Target:
    """Raises:
    ValueError: it is no URL of a WebSocket.
    """
    parts = _split(url, ("ws", "wss"))
    if parts.username is not None:
        raise ValueError("credentials in the URL reach no room; use token, or headers")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(str(parts.hostname), parts.port or _DEFAULT_PORTS[parts.scheme], resource, parts.scheme == "wss")


def parse_http_url(url: str) -> Target:
    """The same for HTTP, without query.

    Raises:
        ValueError: it is no such URL, or has credentials in it.
    """
    parts = _split(url, ("http", "https"))
    if parts.username is not None:
        raise ValueError("an API key in the URL would be seen by others; set TRIOROOM_API_KEY, or give --api-key")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Target(str(parts.hostname), port, parts.path or "/", parts.scheme == "https")


def parse_proxy(url: str) -> Proxy:
    """Raises:
    ValueError: it is no URL of an HTTP proxy.
    """
    parts = _split(url, ("http",))
    authorization = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
    return Proxy(str(parts.hostname), parts.port or _DEFAULT_PORTS["http"], authorization)


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        example = f"{schemes[0]}://127.0.0.1:8000/"
        url = url.partition("?")[0]  # what follows may be a token, and what is before an @ a password
        url = f"…@{url.rpartition('@')[2]}" if "@" in url else url
        raise ValueError(f"{url!r} is no URL of the kind {' or '.join(schemes)}; write it like {example}")
    return parts


class WatchedStream(trio.abc.Stream):
    """A stream that knows when something last came, and whether something can still come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.last_received = trio.current_time()
        """On Trio's clock; any byte counts, those of RFC 6455's pings among them."""
        self.ended = trio.Event()
        """The peer has closed, or the stream is broken."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except _GONE:
            self.ended.set()
            raise
        self.last_received = trio.current_time()
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self.ended.set()
        await self._stream.aclose()


async def open_stream(target: Target, proxy: Proxy | None, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A stream to the server: through the proxy, and with TLS inside, where that is so.

    Raises:
        OSError: the server or the proxy cannot be reached, or TLS fails.
        HandshakeError: the proxy refuses.
    """
    stream: trio.abc.Stream
    if proxy is None:
        stream = await trio.open_tcp_stream(target.host, target.port)
    else:
        stream = await trio.open_tcp_stream(proxy.host, proxy.port)
    try:
        if proxy is not None:
            await _connect_through(stream, proxy, target)
        if target.is_tls:
            context = ssl_context or ssl.create_default_context()
            stream = secured = trio.SSLStream(stream, context, server_hostname=target.host, https_compatible=True)
            await secured.do_handshake()
    except BaseException as exc:
        await trio.aclose_forcefully(stream)
        if isinstance(exc, trio.BrokenResourceError):
            error = _as_os_error(exc, f"{target.host}:{target.port} or what is before it broke off")
            raise error from error.__cause__  # not from exc, which it may be the cause of itself: that makes a ring
        raise
    return stream


def _as_os_error(exc: trio.BrokenResourceError, otherwise: str) -> OSError:
    """A broken stream hides what broke it, such as a certificate that nobody trusts."""
    cause = root_of(exc)
    return cause if isinstance(cause, OSError) else ConnectionResetError(otherwise)


async def _connect_through(stream: trio.abc.Stream, proxy: Proxy, target: Target) -> None:
    """RFC 9110 §9.3.6."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    authority = f"{host}:{target.port}"
    headers = [("Host", authority)]
    if proxy.authorization is not None:
        headers.append(("Proxy-Authorization", proxy.authorization))
    connection = h11.Connection(h11.CLIENT)
    request = connection.send(h11.Request(method="CONNECT", target=authority, headers=headers))
    assert request is not None
    await stream.send_all(request)
    connection.send(h11.EndOfMessage())
    name = f"the proxy {proxy.host}:{proxy.port}"
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
    except h11.RemoteProtocolError as exc:
        raise ConnectionResetError(f"{name} does not speak HTTP, or broke off: {exc}") from exc
    if not isinstance(event, h11.Response):
        raise ConnectionResetError(f"{name} broke off")
    if not 200 <= event.status_code < 300:
        raise HandshakeError(
            event.status_code,
            f"{name} answered CONNECT with HTTP {event.status_code} {event.reason.decode('latin-1')}".rstrip(),
            _text_headers(tuple(event.headers)),
        )


async def shake_hands(
    nursery: trio.Nursery,
    stream: WatchedStream,
    target: Target,
    subprotocol: str,
    headers: Mapping[str, str],
    max_message_bytes: int,
) -> WebSocketConnection:
    """The opening handshake; trio-websocket's reader runs in ``nursery``.

    Errors of that reader, a refusal among them, come out of the nursery; see `explain`.

    Raises:
        ConnectionClosed: the server broke off.
        HandshakeError: the server does not speak ``subprotocol``.
    """
    connection: WebSocketConnection | None = None
    async with trio.open_nursery() as either:

        async def open_connection() -> None:
            nonlocal connection
            connection = await wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do, as its documentation says
                target.authority,
                target.resource,
                subprotocols=[subprotocol],
                extra_headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
                max_message_size=max_message_bytes,
            )
            either.cancel_scope.cancel()

        either.start_soon(open_connection)
        await stream.ended.wait()  # trio-websocket would wait for ever
        await trio.lowlevel.checkpoint()  # what came with the end has been looked at by then
        either.cancel_scope.cancel()
    if connection is None:
        raise ConnectionClosed(CloseCode.ABNORMAL, "the server broke off the opening handshake")
    if connection.subprotocol != subprotocol:
        raise HandshakeError(101, f"{target.shown} does not speak {subprotocol}; is it trioroom?")
    return connection


def explain(error: Exception, target: Target) -> Exception:
    """What trio-websocket and Trio raise, in our words; the rest as it is."""
    match error:
        case trio_websocket.ConnectionRejected():
            said = (error.body or b"")[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
            answered = f"{target.shown} answered the handshake with HTTP {error.status_code}"
            message = f"{answered}: {said}" if said else answered
            return _caused_by(error, HandshakeError(error.status_code, message, _text_headers(error.headers)))
        case trio_websocket.ConnectionClosed():
            return closed_of(error)
    if isinstance(error, _NONSENSE):
        return _caused_by(error, ConnectionClosed(CloseCode.ABNORMAL, f"the server does not speak WebSocket: {error}"))
    if isinstance(error, _GONE):
        return _caused_by(error, ConnectionClosed(CloseCode.ABNORMAL, "the connection broke"))
    return error


def closed_of(error: trio_websocket.ConnectionClosed) -> ConnectionClosed:
    """How the connection was closed."""
    if error.reason is None:
        return ConnectionClosed(CloseCode.ABNORMAL)
    code, reason = error.reason.code, error.reason.reason or ""
    if code == CloseCode.MESSAGE_TOO_BIG and reason.startswith(_TOO_BIG):
        bound = reason[len(_TOO_BIG) :].removesuffix(" bytes")
        return ConnectionClosed(
            code, f"a message exceeds max_message_bytes={bound} of this client; raise it in connect"
        )
    return ConnectionClosed(code, reason, by_peer=code != CloseCode.ABNORMAL)


def _caused_by(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _text_headers(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
