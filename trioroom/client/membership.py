"""A client's place in one room, over all its connections: what comes goes into the inbox, or into the list."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.history import Position
from trioroom._wire import envelopes
from trioroom._wire.client_codec import decode_data
from trioroom._wire.envelopes import Error, Join, Ok, Push, Who
from trioroom.client.events import Event, Gap, Message, Rejoined
from trioroom.client.inbox import FullInbox, Inbox
from trioroom.client.link import refusal
from trioroom.client.presence import Ask, PresenceList
from trioroom.errors import Kicked, fresh
from trioroom.room import MAX_PAGE

if TYPE_CHECKING:
    from trioroom._wire.envelopes import FromServer
    from trioroom.client.link import Answer, Asked, Link
    from trioroom.client.reconnect import Backoff


@attrs.frozen
class RoomOptions:
    """What an application wants of a room."""

    presence: bool
    max_inbox: int
    full_inbox: FullInbox


class Membership:
    """Owned by its `ClientRoom`; the client gives it each connection and what comes of the room on it."""

    def __init__(self, name: str, options: RoomOptions, backoff: Backoff, position: Position | None) -> None:
        self.name = name
        self.position = position
        """What the next message follows, where the room has a history."""
        self.state: object = None
        """What ``on_join`` returned last."""
        self.presence = PresenceList()
        self.is_over = False
        """It will not be joined any more."""
        self._options = options
        self._backoff = backoff
        self._inbox = Inbox(options.max_inbox, options.full_inbox)
        self._resumes = position is not None  # so there may be something to recover
        self._asked: Link | None = None  # on which we have asked to join
        self._link: Link | None = None  # on which we have joined
        self._refusals = 0  # in a row
        self._error: Exception | None = None
        self._changed = trio.Event()
        self._arrived = trio.Event()

    # -- for the application ------------------------------------------------------------------------

    async def wait_joined(self) -> Link:
        """The connection on which the room is joined.

        Raises:
            trio.ClosedResourceError: the room was left.
            Exception: what ended the room, or the client.
        """
        await trio.lowlevel.checkpoint()
        while self._link is None:
            self._raise_if_over()
            await self._changed.wait()
        return self._link

    async def wait_present(self) -> None:
        """Until the list of who is here is whole, or it is known that there is none; raises as `wait_joined`.

        Raises:
            RuntimeError: the list was not asked for.
        """
        if not self._options.presence:
            raise RuntimeError(f"room {self.name!r} was joined without its list; join it with presence=True")
        await trio.lowlevel.checkpoint()
        while not self.presence.is_complete:
            self._raise_if_over()
            await self._changed.wait()

    @property
    def link(self) -> Link | None:
        """The connection on which the room is joined now."""
        return self._link

    async def next_event(self) -> Event:
        """The oldest that waits; raises as `wait_joined` when nothing does and nothing will.

        Cancelled, it has taken none.
        """
        await trio.lowlevel.checkpoint()
        while (event := self._inbox.take()) is None:
            self._raise_if_over()
            await self._arrived.wait()
        if self._link is not None and not self._inbox.is_full:
            self._link.resume()
        return event

    def leave(self) -> Link | None:
        """Nothing comes any more; the connection on which the server is to be told."""
        self.end(None)
        self._inbox.clear()
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.resume()
        return asked

    # -- for the client -----------------------------------------------------------------------------

    def ask_to_join(self, link: Link) -> Asked:
        """The request that joins the room on ``link``, from where we were."""
        self._asked = link
        return (lambda id: Join(id, self.name, self.position)), partial(self._answered, link)

    def end(self, error: Exception | None) -> None:
        """For good; None when the application wants it so."""
        if not self.is_over:
            self.is_over, self._error, self._link = True, error, None
            self._tell_changed()
            self._tell_arrived()

    def lose(self) -> None:
        """There is no connection now."""
        self._link = self._asked = None
        self.presence.stop()

    async def take(self, link: Link, push: FromServer) -> None:
        """What the server says of the room on ``link``; awaits while the inbox is full, if it is to."""
        if self._link is not link:
            return  # left, or not joined yet: it is of an earlier membership
        match push:
            case Push():
                self._put(self._message(push))
            case envelopes.Gap(_, reason, lost, position):
                known = position if isinstance(position, Position) else None
                self.position = known or self.position
                self._put(Gap(reason, lost, known))
            case envelopes.PositionChanged(_, position):
                self.position = position
            case envelopes.Presence() if self._options.presence:
                self._take_presence(link, self.presence.push(push))
            case envelopes.Kicked(_, code, reason):
                self._asked = None
                self.end(Kicked(code, reason))
        if self._options.full_inbox is FullInbox.WAIT:
            while self._inbox.is_full and not self.is_over and not link.has_to_read:
                await link.pause()

    def _message(self, push: Push) -> Message:
        position = None
        if push.offset is not None and self.position is not None:
            position = self.position = Position(self.position.epoch, push.offset)
        return Message(decode_data(push.data, push.encoding), push.sender, position)

    # -- joining ------------------------------------------------------------------------------------

    def _answered(self, link: Link, answer: Answer) -> None:
        if self._asked is not link:
            return  # left meanwhile, or lost: the next connection asks again
        match answer:
            case Ok():
                self._joined(link, answer)
            case Error(retry=True) | Error(code="unavailable"):
                after = self._backoff.after(self._refusals, random.random()) if answer.after is None else answer.after
                self._refusals += 1
                link.nursery.start_soon(self._join_later, link, after)
            case Error():
                self._asked = None
                self.end(refusal(answer))

    async def _join_later(self, link: Link, after: float) -> None:
        await trio.sleep(after)
        if self._asked is link and not self.is_over:
            link.ask_together([self.ask_to_join(link)])

    def _joined(self, link: Link, ok: Ok) -> None:
        self._link = link
        self._refusals = 0
        self.state = ok.state
        self.position = ok.position
        if self._resumes:
            recovered = ok.recovered is True
            self._put(Rejoined(recovered, ok.state))
            if not recovered:
                self._put(Gap("reconnect", None, ok.position))
        self._resumes = True
        if self._options.presence:
            self._take_presence(link, self.presence.begin())
        self._tell_changed()

    # -- presence -----------------------------------------------------------------------------------

    def _take_presence(self, link: Link, news: Ask | Event | None) -> None:
        if isinstance(news, Ask):
            link.ask_together([(lambda id: Who(id, self.name, MAX_PAGE, news.after), partial(self._page, link, news))])
        elif news is not None:
            self._put(news)

    def _page(self, link: Link, asked: Ask, answer: Answer) -> None:
        """A page counts when it comes, before what comes after it; see `Link`."""
        match answer:
            case Ok() if self._link is link:
                self._take_presence(link, self.presence.page(asked, answer))
            case Error(code="unsupported"):
                self._take_presence(link, self.presence.only_counts())
            case _:
                self.presence.stop()
        if self.presence.is_complete:
            self._tell_changed()

    # -- telling ------------------------------------------------------------------------------------

    def _put(self, event: Event) -> None:
        self._inbox.put(event)
        self._tell_arrived()

    def _tell_arrived(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise fresh(self._error)
        if self.is_over:
            raise trio.ClosedResourceError("the room was left")
