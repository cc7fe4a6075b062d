"""`Client`: one connection after another, and the rooms that outlive them."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import attrs
import trio

from trioroom._core.causes import leaves_of
from trioroom._core.history import Position
from trioroom._wire.client_codec import ClientCodec
from trioroom._wire.envelopes import FromServer, Leave
from trioroom.client.dialing import (
    BROKEN,
    Target,
    WatchedStream,
    explain,
    shake_hands,
)
from trioroom.client.events import ClientState
from trioroom.client.inbox import FullInbox
from trioroom.client.link import Asked, Link, receive_hello
from trioroom.client.membership import Membership, RoomOptions
from trioroom.client.reconnect import Backoff, Ended, Reconnection
from trioroom.client.room import ClientRoom
from trioroom.client.status import Status
from trioroom.client.tokens import Token, Tokens
from trioroom.errors import Disconnected, RequestRefused, TrioroomError, fresh

log = logging.getLogger("trioroom.client")

CLOSE_TIMEOUT = 2.0
"""Seconds for the closing handshake, and for leaving a room."""
_EXPECTED = (OSError, TrioroomError, *BROKEN)
"""How a connection may end; all else is a bug."""

Dial: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]


@attrs.frozen(kw_only=True)
class ClientOptions:
    """As `connect` takes them."""

    target: Target
    dial: Dial
    codec: ClientCodec
    headers: Mapping[str, str] = attrs.field(repr=False)
    max_inbox: int
    full_inbox: FullInbox
    max_pending: int
    max_message_bytes: int
    connect_timeout: float
    backoff: Backoff


class Client:
    """Goes on over as many connections as it takes; get it from `trioroom.connect`."""

    def __init__(self, options: ClientOptions, token: Token) -> None:
        self._options = options
        self._tokens = Tokens(token)
        self._reconnection = Reconnection(options.backoff)
        self._rooms: dict[str, Membership] = {}
        self._pending = trio.Semaphore(options.max_pending)
        self._link: Link | None = None
        self._status = Status()
        self._running = trio.CancelScope(shield=True)  # `open_client` ends it
        self._done = trio.Event()

    @property
    def state(self) -> ClientState:
        """How it is now."""
        return self._status.current

    def states(self) -> AsyncIterator[ClientState]:
        """How it is now, and then each change, until it is closed; who is slow gets the latest."""
        return self._status.follow()

    async def wait_open(self) -> None:
        """Wait until there is a connection; raises what closed the client."""
        await self._wait_link()

    async def authenticate(self, token: Token) -> None:
        """Show another token, or what a function brings, from now on: for the joins that follow, on all connections.

        A server that authenticates takes it only if it is of the same user as the one before; to be somebody else,
        connect anew.

        Raises:
            RequestRefused: the server does not take it; things stay as they were.

        Cancelled, it may be shown or not, and will be on the next connection.
        """
        before, self._tokens.token = self._tokens.token, token
        try:
            if (shown := await self._tokens.call()) is not None:
                await self._show(shown)
        except Exception:
            self._tokens.token = before
            raise

    async def _show(self, token: str) -> None:
        while True:
            link = await self._wait_link()
            try:
                return await self._tokens.show(link, token)
            except Disconnected:
                continue  # the next one begins with it

    @asynccontextmanager
    async def join(
        self,
        name: str,
        *,
        presence: bool = False,
        position: Position | None = None,
        max_inbox: int | None = None,
        full_inbox: FullInbox | None = None,
    ) -> AsyncIterator[ClientRoom]:
        """Be in a room while the context is open: joined when it is entered, and again on each new connection.

        Waits for a connection, and while the room is full or cannot be reached; set a deadline with
        ``trio.fail_after`` if that may not take for ever.

        Args:
            presence: keep the list of who is here.
            position: go on from there, as after a reconnect: what was missed comes first, or a `Gap` tells that it
                cannot be had.
            max_inbox: events that may wait to be read, instead of the client's.
            full_inbox: what happens when more come, instead of the client's.
        Raises:
            RequestRefused: the room does not let the client in.
            RuntimeError: the client is in this room already.
        """
        if name in self._rooms:
            raise RuntimeError(f"this client is in room {name!r} already; use that one")
        options = RoomOptions(presence, max_inbox or self._options.max_inbox, full_inbox or self._options.full_inbox)
        membership = self._rooms[name] = Membership(name, options, self._options.backoff, position)
        try:
            if self._status.is_closed:
                membership.end(self._status.current.error)
            elif self._link is not None:
                self._link.ask_together([membership.ask_to_join(self._link)])
            await membership.wait_joined()
            yield ClientRoom(membership, self._pending, self._options.backoff)
        finally:
            del self._rooms[name]
            await _leave(membership)

    # -- one connection after another ---------------------------------------------------------------

    async def run(self) -> None:
        """Until the client is closed."""
        try:
            with self._running:
                while not self._status.is_closed:
                    ended = await self._connect_once()
                    await self._rest(ended)
        finally:
            self._done.set()

    async def _rest(self, ended: Ended) -> None:
        after = self._reconnection.wait_after(ended, random.random())
        if after is None:
            return self._close(ended.error)
        if not self._status.is_closed:
            server = self._options.target.authority
            log.info("not connected to %s: %s; again in %.2f s", server, ended.error, after, extra={"server": server})
            self._status.set(ClientState("waiting", after, ended.error))
            await trio.sleep(after)

    async def _connect_once(self) -> Ended:
        """One connection from its beginning to its end."""
        options = self._options
        self._status.set(ClientState("connecting", error=self._status.current.error))
        errors: list[BaseException] = []
        link: Link | None = None

        def opened(greeted: Link) -> None:
            nonlocal link
            link = greeted
            connecting.deadline = float("inf")

        try:
            with trio.move_on_after(options.connect_timeout) as connecting:
                await self._hold(opened)
        except* _EXPECTED as group:
            errors = leaves_of(group)
        if not errors:
            answer = f"no answer from {options.target.authority} within connect_timeout={options.connect_timeout:g} s"
            return Ended(TimeoutError(answer))
        error = explain(next(error for error in errors if isinstance(error, Exception)), options.target)
        if link is None:
            return Ended(error)
        return Ended(error, trio.current_time() - link.opened_at, None if link.bye is None else link.bye.after)

    async def _hold(self, opened: Callable[[Link], None]) -> None:
        """Connect, and be connected until that ends with an error."""
        options = self._options
        token = await self._tokens.call_to_connect()
        stream = WatchedStream(await options.dial())
        try:
            async with trio.open_nursery() as nursery:
                ws = await shake_hands(
                    nursery,
                    stream,
                    options.target,
                    options.codec.subprotocol,
                    options.headers,
                    options.max_message_bytes,
                )
                link = Link(ws, stream, options.codec, await receive_hello(ws, options.codec), nursery)
                opened(link)
                nursery.start_soon(link.write)
                nursery.start_soon(link.watch)
                nursery.start_soon(self._tokens.renew, link)
                await self._use(link, token)
        finally:
            await trio.aclose_forcefully(stream)

    async def _use(self, link: Link, token: str | None) -> None:
        asked: list[Asked] = [] if token is None else [self._tokens.first(token)]
        asked += [membership.ask_to_join(link) for membership in self._rooms.values() if not membership.is_over]
        if asked:
            link.ask_together(asked)
        self._link = link
        self._status.set(ClientState("open"))
        try:
            await link.read(partial(self._take, link))
        finally:
            self._link = None
            for membership in self._rooms.values():
                membership.lose()
            link.lose()

    async def _take(self, link: Link, envelope: FromServer) -> None:
        room = getattr(envelope, "room", None)
        if room in self._rooms:
            await self._rooms[room].take(link, envelope)

    async def _wait_link(self) -> Link:
        await trio.lowlevel.checkpoint()
        while self._link is None:
            if self._status.is_closed:
                raise (
                    trio.ClosedResourceError("the client is closed")
                    if self._status.current.error is None
                    else fresh(self._status.current.error)
                )
            await self._status.wait_changed()
        return self._link

    # -- its end ------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the WebSocket with 1000; awaits that, but not for long."""
        link = self._link
        self._close(None)
        if link is not None:
            link.close()
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._done.wait()
        self._running.cancel()

    def _close(self, error: Exception | None) -> None:
        self._status.set(ClientState("closed", error=error))
        for membership in self._rooms.values():
            membership.end(error)


async def _leave(membership: Membership) -> None:
    """Tell the server, if there is one to tell."""
    link = membership.leave()
    if link is None:
        return
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        try:
            await link.ask(lambda id: Leave(id, membership.name))
        except (Disconnected, RequestRefused):
            pass  # out of it by another way
