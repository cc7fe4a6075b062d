"""A relay before noida, which answers a fetch of nothing at once and is asked again at once.

That is 20,000 fetches a second for each idle reader, and most of a core for both ends. Here each fetch waits a moment
before it is passed on. A process of its own: ``python -m tests.backplane.kafka.pacer PORT`` listens on 127.0.0.1 and
has the same port of 127.0.0.2 behind it, whose address it exchanges for its own in what the broker says.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

HERE, BEHIND = "127.0.0.1", "127.0.0.2"
_PAUSE = 0.01  # seconds
_FETCH = 1  # what a request is, the first thing in it (https://kafka.apache.org/protocol#protocol_api_keys)
_LENGTH = 4  # bytes, which say how many follow


async def frames(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    """Requests or answers, with their length."""
    received = bytearray()
    async for data in stream:
        received += data
        while len(received) >= _LENGTH:
            (length,) = struct.unpack_from(">i", received)
            if len(received) < _LENGTH + length:
                break
            yield bytes(received[: _LENGTH + length])
            del received[: _LENGTH + length]


async def relay(port: int, client: trio.SocketStream) -> None:
    """One connection, until either end closes it."""
    async with client:
        try:
            broker = await trio.open_tcp_stream(BEHIND, port)
        except OSError:
            return  # the client finds its connection closed
        async with broker, trio.open_nursery() as nursery:
            for each in (ask, answer):
                nursery.start_soon(until_either_ends, each, client, broker, nursery.cancel_scope)


async def until_either_ends(
    each: Callable[[trio.SocketStream, trio.SocketStream], Awaitable[None]],
    client: trio.SocketStream,
    broker: trio.SocketStream,
    both: trio.CancelScope,
) -> None:
    try:
        await each(client, broker)
    except trio.BrokenResourceError:
        pass
    both.cancel()


async def ask(client: trio.SocketStream, broker: trio.SocketStream) -> None:
    async for request in frames(client):
        (kind,) = struct.unpack_from(">h", request, _LENGTH)
        if kind == _FETCH:
            await trio.sleep(_PAUSE)
        await broker.send_all(request)


async def answer(client: trio.SocketStream, broker: trio.SocketStream) -> None:
    async for reply in frames(broker):
        await client.send_all(reply.replace(BEHIND.encode(), HERE.encode()))  # as long as the other


async def main(port: int) -> None:
    await trio.serve_tcp(partial(relay, port), port, host=HERE)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
