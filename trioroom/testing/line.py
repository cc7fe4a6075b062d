"""The Python client against a test server: between the two a line through memory that a test can cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, Protocol, TypeAlias

import trio
import trio.testing

from trioroom.client import Backoff, Client, FullInbox
from trioroom.client.opening import connect
from trioroom.client.tokens import Token

_End: TypeAlias = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class ServesStreams(Protocol):
    """What a line leads to: a `trioroom.Server`, or something of your own."""

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one peer; returns when it is gone."""
        ...


class Line:
    """The way of clients to a server, through memory; get it from `open_line`.

    ``trioroom.connect("ws://test/", dial=line.dial)`` goes by it, as `open_client` does with fewer options.
    """

    def __init__(self, server: ServesStreams | None, nursery: trio.Nursery) -> None:
        self.server = server
        """Where it leads. Set another one, or None for nowhere; connections that are open stay where they are."""
        self.dials = 0
        """How often somebody has tried to connect."""
        self._nursery = nursery
        self._ends: list[_End] = []

    async def dial(self) -> trio.abc.Stream:
        """A connection to the server.

        Raises:
            ConnectionRefusedError: it leads nowhere.
        """
        await trio.lowlevel.checkpoint()
        self.dials += 1
        if self.server is None:
            raise ConnectionRefusedError("the line leads nowhere")
        ours, theirs = trio.testing.memory_stream_pair()
        self._ends += (ours, theirs)
        self._nursery.start_soon(self.server.serve_stream, theirs, name="line")
        return ours

    def cut(self) -> None:
        """Break all connections, without a close frame: either side learns so once its tasks run.

        What is asked of a client before that is lost with the connection,
        so that tests call `trio.testing.wait_all_tasks_blocked` first.
        """
        for end in self._ends:
            end.receive_stream.put_eof()
        self._ends.clear()

    def silence(self) -> None:
        """From now on nothing gets through on the connections that are open, and neither side is told: only heartbeats
        find out. `cut` ends that too.
        """
        for end in self._ends:
            end.send_stream.send_all_hook = None
            end.send_stream.close_hook = None


@asynccontextmanager
async def open_line(server: ServesStreams | None = None) -> AsyncIterator[Line]:
    """A `Line` to ``server``, which is cut when the context is left.

    Open it outside of a server that is to go away while clients stay.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        line = Line(server, nursery)
        try:
            yield line
        except trio.Cancelled:
            raise
        except BaseException as exc:  # carried past the nursery, which would wrap it in a group
            failure = exc
        line.server = None
        line.cut()
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_client(
    to: ServesStreams | Line,
    *,
    token: Token = None,
    codec: Literal["json", "msgpack"] = "json",
    headers: Mapping[str, str] | None = None,
    max_inbox: int = 1_000,
    full_inbox: FullInbox = FullInbox.DROP_OLDEST,
    connect_timeout: float = 10.0,
    backoff: Backoff | None = None,
) -> AsyncIterator[Client]:
    """The client of `trioroom.connect`, through memory: its back-off and heartbeats run on the test's clock.

    Args:
        to: a server; or a `Line`, if the test is about what happens when connections break, or servers go.
    """
    async with AsyncExitStack() as stack:
        line = to if isinstance(to, Line) else await stack.enter_async_context(open_line(to))
        connecting = connect(
            "ws://test/", dial=line.dial, token=token, codec=codec, headers=headers, max_inbox=max_inbox,
            full_inbox=full_inbox, connect_timeout=connect_timeout, backoff=backoff,
        )  # fmt: skip
        yield await stack.enter_async_context(connecting)
