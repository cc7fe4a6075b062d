"""The hub: which rooms are active on this node, and who is connected."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioroom._core.routes import fault_of_name
from trioroom._core.statistics import Deliveries, Totals
from trioroom._net.active_room import ActiveRoom
from trioroom._net.limits import Limits
from trioroom._wire.publication import check_publication_id, encode_publication
from trioroom.errors import BackplaneError
from trioroom.member import Member

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._core.overflow import Overflow, Tally
    from trioroom._core.routes import Routes
    from trioroom._net.authentication import Authentication
    from trioroom._net.connection import Connection
    from trioroom._net.room_history import Place
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane
    from trioroom.room import Room
    from trioroom.settings import Settings


class UnknownRoom(Exception):
    """There can be no room of this name, as the message says."""


class Hub:
    """One per server; its rooms run in ``nursery``, which the server owns."""

    def __init__(
        self,
        routes: Routes[type[Room]],
        backplane: Backplane,
        settings: Settings,
        nursery: trio.Nursery,
        authentication: Authentication | None = None,
    ) -> None:
        self.routes = routes
        self.backplane = backplane
        self.settings = settings
        self.authentication = authentication
        """Says who the peers are; None: nobody asks."""
        self.limits = Limits(settings)
        if authentication is not None:
            authentication.timing = self.limits.meters.timings.hooks["authenticate"]
        self._totals = Totals()
        self.connections: set[Connection] = set()
        self.rooms: dict[str, ActiveRoom] = {}
        self.retiring = False  # not ready any more, which load balancers have to see; peers still get in
        self.draining = False  # who comes now is told to go elsewhere
        self._nursery = nursery
        self._empty = trio.Event()
        self._answering = 0
        self._answered = trio.Event()

    async def run(self) -> None:
        """Until cancelled: then every connection stops, also those that other nurseries own."""
        try:
            await trio.sleep_forever()
        finally:
            for connection in list(self.connections):
                connection.stop()

    @property
    def unready(self) -> str | None:
        """Why peers had better go to other servers, if so."""
        if self.retiring:
            return "the server drains"
        return None if self.backplane.ready else "the backplane is down"

    def add(self, connection: Connection) -> None:
        """``connection`` is open."""
        self.connections.add(connection)
        if self._empty.is_set():
            self._empty = trio.Event()

    def remove(self, connection: Connection) -> None:
        """It is over, and out of all its rooms."""
        self.connections.remove(connection)
        if self.authentication is not None:
            self.authentication.forget(connection)
        if not self.connections:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Until nobody is connected; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.connections:
            await self._empty.wait()

    def begin_answer(self) -> None:
        """A peer that is not connected yet has asked for something."""
        self._answering += 1

    def end_answer(self) -> None:
        """It has its answer, or is gone."""
        self._answering -= 1
        if not self._answering and self.draining:
            self._answered.set()

    async def wait_answered(self) -> None:
        """Once `draining` is set: until nobody waits for an answer; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._answering:
            self._answered = trio.Event()
            await self._answered.wait()

    def deliveries(self) -> dict[Overflow, Deliveries]:
        """Where the messages of all rooms went, by the rooms' policy."""
        return self._totals.deliveries((room.room.overflow, room.tally) for room in self.rooms.values())

    def tallies_of_closed_rooms(self) -> dict[Overflow, Tally]:
        """What `deliveries` counts beside the rooms that are active now, for who takes time to add those."""
        return self._totals.tallies(())

    def new_id(self) -> str:
        """An id no other connection on any node has: 64 random bits."""
        return os.urandom(8).hex()

    def knows(self, name: str) -> bool:
        """Whether a room of this name can be joined."""
        if name in self.rooms:  # spares most who come the look at its name and the routes
            return True
        try:
            self.route(name)
        except UnknownRoom:
            return False
        return True

    def route(self, name: str) -> tuple[type[Room], dict[str, str]]:
        """The class of the room ``name``, and the parameters in the name.

        Raises:
            UnknownRoom: no route matches, or no room may have that name.
        """
        if (fault := self._fault_of_name(name)) is not None:
            raise UnknownRoom(fault)
        match = self.routes.match(name)
        if match is None:
            raise UnknownRoom(f"no room is called {name!r}; check its spelling")
        return match

    def _fault_of_name(self, name: str) -> str | None:
        settings = self.settings
        return fault_of_name(name, settings.max_room_name_bytes, settings.room_name_pattern)

    async def join(
        self,
        name: str,
        connection: Connection,
        token: str | None,
        welcome: Callable[[Member, object, Place], None],
        position: Position | None = None,
    ) -> Member:
        """A new member of the room ``name``; ``welcome`` sends it what ``on_join`` returned, and where it begins.

        Raises:
            UnknownRoom: no route matches, or no room may have that name.
            JoinRefused: the room does not want this peer, or is full (`RoomFull`).
            RoomFailed: the room could not be opened.
        """
        while (active := self.rooms.get(name)) is not None and active.ending:
            await active.closed.wait()
        if active is None:
            active = self._open(name)
        active.take_place()
        member = Member(active, connection, token)
        await active.join(member, partial(welcome, member), position)
        return member

    async def publish(self, name: str, data: Data, key: str | None, publication_id: str | None) -> Position | None:
        """See `App.publish`; a room that is active here has its own pace. Returns its place in the history."""
        active = self.rooms.get(name)
        if active is not None:
            return await active.publish(data, exclude=None, sender=None, key=key, publication_id=publication_id)
        payload = encode_publication(data, key=key)
        check_publication_id(publication_id)
        if (fault := self._fault_of_name(name)) is not None:  # it might be a name that servers keep for themselves
            raise ValueError(fault)
        match = self.routes.match(name)
        history = None if match is None else match[0].history
        position: Position | None = None
        try:
            if history is not None:
                assert self.backplane.history is not None, "open_server has asked it"
                position = await self.backplane.history.publish(name, payload, history, publication_id)
            else:
                await self.backplane.publish(name, payload, publication_id)
        except BackplaneError:
            self.limits.meters.failed_publications += 1
            raise
        self.limits.meters.publications += 1
        return position

    def _open(self, name: str) -> ActiveRoom:
        room_class, params = self.route(name)
        active = ActiveRoom(room_class(), params, name, self.backplane, self.limits)
        self.rooms[name] = active
        self._nursery.start_soon(active.run, self._forget, name=f"room {name}")
        return active

    def _forget(self, ended: ActiveRoom) -> None:
        del self.rooms[ended.room.name]
        self._totals.close(ended.room.overflow, ended.tally)
