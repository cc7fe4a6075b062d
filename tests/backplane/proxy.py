"""A TCP proxy that fails as networks do, between a client and a server of the tests."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

CLOSE_TIMEOUT: Final = 1.0  # for a TLS goodbye
RESET_ON_CLOSE: Final = struct.pack(
    "ii", 1, 0
)  # SO_LINGER, on, 0 seconds: what is unsent is dropped and a RST goes out
BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@asynccontextmanager
async def open_proxy(
    port_of_server: int,
    ssl_context: ssl.SSLContext | None = None,
    *,
    address: Callable[[int], bytes] | None = None,
) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1 before a server there; all its connections end with it.

    Args:
        port_of_server: where each connection is forwarded to, in plain text.
        ssl_context: of the server side, has clients speak TLS.
        address: how a server that says where it is writes its port; the proxy says that it is there itself. What
            arrives in two parts is not noticed.
    """
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            proxy = Proxy(listener.socket.getsockname()[1], port_of_server, ssl_context, address)
            nursery.start_soon(trio.serve_listeners, proxy._serve, [listener])
            yield proxy
            nursery.cancel_scope.cancel()


class Proxy:
    """Forwards both ways without delay until told otherwise; made by `open_proxy`."""

    def __init__(
        self,
        port: int,
        port_of_server: int,
        ssl_context: ssl.SSLContext | None,
        address: Callable[[int], bytes] | None,
    ) -> None:
        self.port = port
        self._address = address
        self._port_of_server = port_of_server
        self._ssl_context = ssl_context
        self._forwards = True
        self._links: set[_Link] = set()

    @property
    def connections(self) -> int:
        """How many are open, those in the black hole among them."""
        return len(self._links)

    def black_hole(self) -> None:
        """From now on nothing more comes through or is said about it, as when packets are dropped.

        Connections stay open at both ends, also when one end closes. The proxy reads no more, so a client's sends
        block once the kernel's buffers are full. New connections are accepted and come no further.
        """
        self._forwards = False
        for link in self._links:
            link.forwarding.cancel()

    def heal(self) -> None:
        """New connections work again; those that `black_hole` hit stay dead, as after the loss of a NAT table."""
        self._forwards = True

    def reset(self) -> None:
        """Drop all connections at once, at both ends and with a RST; new ones are as before."""
        for link in self._links:
            link.reset()

    def _answer(self, data: bytes) -> bytes:
        """What the client is to get of that."""
        if self._address is None:
            return data
        return data.replace(self._address(self._port_of_server), self._address(self.port))

    async def _serve(self, client: trio.SocketStream) -> None:
        link = _Link(client, self._answer)
        self._links.add(link)
        try:
            if self._forwards:
                with link.forwarding:
                    await link.forward(self._port_of_server, self._ssl_context)
                    return
            await link.dropped.wait()  # in the black hole
        finally:
            self._links.discard(link)
            link.close()


class _Link:
    """A client's connection and, once there is one, its counterpart to the server."""

    def __init__(self, client: trio.SocketStream, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.forwarding = trio.CancelScope()
        """Of all that reads and writes; once cancelled the link is in the black hole."""
        self.dropped = trio.Event()
        self._ends = [client]

    def reset(self) -> None:
        for end in self._ends:
            if end.socket.fileno() >= 0:
                end.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()
        self.dropped.set()

    def close(self) -> None:
        for end in self._ends:
            end.socket.close()

    async def forward(self, port_of_server: int, ssl_context: ssl.SSLContext | None) -> None:
        """Until either end is closed, then the other one is too; an end that breaks has the other one reset."""
        client: Stream = self._ends[0]
        if ssl_context:
            client = trio.SSLStream(self._ends[0], ssl_context, server_side=True)
        try:
            server = await trio.open_tcp_stream("127.0.0.1", port_of_server)
            self._ends.append(server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, client, server, bytes, nursery.cancel_scope)
                nursery.start_soon(_pump, server, client, self._answer, nursery.cancel_scope)
        except* (OSError, *BROKEN):
            self.reset()
        else:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await client.aclose()


async def _pump(source: Stream, sink: Stream, translate: Callable[[bytes], bytes], both: trio.CancelScope) -> None:
    async for data in source:
        await sink.send_all(translate(bytes(data)))
    both.cancel()
