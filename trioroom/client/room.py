"""`ClientRoom`, what an application does in a room."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import trio

from trioroom._wire import envelopes
from trioroom._wire.client_codec import decode_data
from trioroom.client.events import Event, Message
from trioroom.client.reconnect import FLOOR
from trioroom.errors import Disconnected, RemoteProtocolError, RequestRefused, Unconfirmed
from trioroom.room import HistoryPage, KeptMessage, PresencePage, PresentUser

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._wire.envelopes import Ok
    from trioroom._wire.message import Data
    from trioroom.client.link import Make
    from trioroom.client.membership import Membership
    from trioroom.client.reconnect import Backoff

CONFIRM_TIMEOUT = 120.0
"""Seconds after its first sending for which a publication is sent again; servers know its id for longer (300)."""

Value = TypeVar("Value")


class ClientRoom:
    """A room that a client is in; get it from `Client.join`.

    Iterating yields the messages, as long as the room lasts, and passes over gaps; `events` tells all. It raises
    what ends the room: `trioroom.Kicked`, `trioroom.RequestRefused` when the room does not let the client in again,
    what ended the client, or ``trio.ClosedResourceError`` when the room was left. Lost connections do not end it.
    """

    def __init__(self, membership: Membership, pending: trio.Semaphore, backoff: Backoff) -> None:
        self._membership = membership
        self._pending = pending
        self._backoff = backoff

    @property
    def name(self) -> str:
        """The whole name, such as ``chat/lobby``."""
        return self._membership.name

    @property
    def state(self) -> object:
        """What the room's ``on_join`` returned, the last time it was joined."""
        return self._membership.state

    @property
    def position(self) -> Position | None:
        """How far this client has come in the room's history; None in rooms without one.

        It may be ahead of what you have read from the inbox: to go on in another process, keep that of the last
        `trioroom.client.Message` you are done with.
        """
        return self._membership.position

    @property
    def present(self) -> Mapping[str, object]:
        """Who is here, what they show by user; with ``presence`` only. See `wait_present`."""
        return MappingProxyType(self._membership.presence.users)

    @property
    def present_count(self) -> int:
        """How many users are here, also in rooms that only count; with ``presence`` only."""
        return self._membership.presence.count

    async def wait_present(self) -> None:
        """Wait until `present` is whole for the first time; raises what ends the room.

        Raises:
            RuntimeError: the room was joined without ``presence``.
        """
        await self._membership.wait_present()

    # -- what comes ---------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while True:
            if isinstance(event := await self._membership.next_event(), Message):
                return event

    def events(self) -> AsyncIterator[Event]:
        """All that happens, in order. Messages are taken from the same inbox: what one loop gets the other does not."""
        return _Events(self._membership)

    # -- what is asked ------------------------------------------------------------------------------

    async def publish(self, data: Data, *, publication_id: str | None = None, confirm: bool = True) -> None:
        """Send ``data`` to the room, which by default passes it on to the others; returns when the server says so.

        Sent again after a reconnect until it is answered, and counts once all the same. Cancelled, it may have gone
        out or not.

        Args:
            publication_id: 1 to 128 characters, at random if left out; give one to try again later what is
                `trioroom.Unconfirmed` now, within 300 s.
            confirm: False only writes it, on the connection there is, and does not know what becomes of it.
        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
            LocalProtocolError: it is larger than the server takes.
            RequestRefused: the room or the server does not want it.
            Unconfirmed: sent, and not answered for 120 s.
            Disconnected: there is no connection, and ``confirm`` is False.

        Awaits its turn when ``max_pending`` publications of the client wait already.
        """
        if not confirm:
            return await self._send(data, publication_id)
        publication_id = secrets.token_hex(8) if publication_id is None else publication_id
        async with self._pending:
            with trio.CancelScope() as scope:
                return await self._publish(data, publication_id, scope)
        raise Unconfirmed(
            f"a publication in {self.name!r} was not answered for {CONFIRM_TIMEOUT:g} s; it may have gone out or not"
        )

    async def _publish(self, data: Data, publication_id: str, scope: trio.CancelScope) -> None:
        """Until it is answered; ``scope`` gets its deadline with the first sending."""
        failures = 0
        while True:
            link = await self._membership.wait_joined()
            raw, encoding = link.codec.encode_data(data)
            make = partial(envelopes.Publish, self.name, raw, encoding=encoding, publication_id=publication_id)
            scope.deadline = min(scope.deadline, trio.current_time() + CONFIRM_TIMEOUT)
            try:
                await link.ask(lambda id: make(id=id))  # noqa: B023  # asked at once
                return
            except Disconnected:
                continue
            except RequestRefused as refused:
                if not refused.retry:
                    raise
                after = self._backoff.after(failures, random.random()) if refused.after is None else refused.after
            failures += 1
            await trio.sleep(max(FLOOR, after))  # a room may say any number

    async def _send(self, data: Data, publication_id: str | None) -> None:
        await trio.lowlevel.checkpoint()
        link = self._membership.link
        if link is None:
            raise Disconnected("there is no connection now, and what nobody confirms is not kept for the next one")
        raw, encoding = link.codec.encode_data(data)
        await link.send(envelopes.Publish(self.name, raw, encoding=encoding, publication_id=publication_id))

    async def call(self, data: Data, *, timeout: float | None = None) -> object:
        """Ask the room; its ``on_call`` answers. Waits for a connection, and is sent once.

        When cancelled it is cancelled at the server too.

        Args:
            timeout: seconds that the server gives the room. For how long you wait use ``trio.fail_after``.
        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
            RequestRefused: the room or the server does not want it, or could not answer.
            Disconnected: the connection was lost before the answer; calling again does no harm if the call is
                idempotent.
        """
        link = await self._membership.wait_joined()
        raw, encoding = link.codec.encode_data(data)
        ok = await link.ask(lambda id: envelopes.Call(id, self.name, raw, timeout, encoding), cancels=True)
        return ok.data

    async def history(
        self, limit: int = 50, *, before: Position | None = None, after: Position | None = None
    ) -> HistoryPage:
        """Messages that the room keeps, oldest first: the latest, or those before or after a position.

        Args:
            limit: how many at most, from 1 to 1,000; fewer if they are large.
        Raises:
            RequestRefused: the room keeps none, the position is lost, or the server cannot reach it now.
        """
        return await self._ask(lambda id: envelopes.History(id, self.name, limit, after, before), _history_page)

    async def who(self, limit: int = 100, *, after: str | None = None) -> PresencePage:
        """A page of who is in the room, in the order of user ids; `present` is the whole, kept up to date.

        Args:
            limit: how many users at most, from 1 to 1,000.
            after: the user behind which the page begins.
        Raises:
            RequestRefused: the room does not show who is in it.
        """
        return await self._ask(lambda id: envelopes.Who(id, self.name, limit, after), _presence_page)

    async def _ask(self, make: Make, read: Callable[[Ok], Value]) -> Value:
        """What changes nothing is asked again when the connection is lost."""
        while True:
            link = await self._membership.wait_joined()
            try:
                return read(await link.ask(make))
            except Disconnected:
                continue


class _Events:
    """Of one room."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._membership.next_event()


def _history_page(ok: Ok) -> HistoryPage:
    if ok.position is None:
        raise RemoteProtocolError("the server sent a page of a history without a position")
    messages = tuple(
        KeptMessage(item.offset, decode_data(item.data, item.encoding), item.sender) for item in ok.messages or ()
    )
    return HistoryPage(messages, ok.position, bool(ok.more))


def _presence_page(ok: Ok) -> PresencePage:
    members = tuple(PresentUser(member.user, member.info) for member in ok.members or ())
    return PresencePage(members, ok.count or 0, ok.version or 0, bool(ok.more))
