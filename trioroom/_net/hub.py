"""The hub: which rooms are active on this node, and who is connected."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from trioroom._core.budget import Budget
from trioroom._net.active_room import ActiveRoom
from trioroom.member import Member

if TYPE_CHECKING:
    from trioroom._core.routes import Routes
    from trioroom._net.connection import Connection
    from trioroom.backplane.base import Backplane
    from trioroom.room import Room
    from trioroom.settings import Settings


class UnknownRoom(Exception):
    """No route leads to a room of this name."""


class Hub:
    """One per server; its rooms run in ``nursery``, which the server owns."""

    def __init__(
        self, routes: Routes[type[Room]], backplane: Backplane, settings: Settings, nursery: trio.Nursery
    ) -> None:
        self.routes = routes
        self.backplane = backplane
        self.settings = settings
        self.budget = Budget(settings.max_queued_bytes)
        self.connections: set[Connection] = set()
        self.rooms: dict[str, ActiveRoom] = {}
        self.draining = False
        self._nursery = nursery
        self._empty = trio.Event()

    async def run(self) -> None:
        """Until cancelled: then every connection stops, also those that other nurseries own."""
        try:
            await trio.sleep_forever()
        finally:
            for connection in list(self.connections):
                connection.stop()

    def add(self, connection: Connection) -> None:
        """``connection`` is open."""
        self.connections.add(connection)
        if self._empty.is_set():
            self._empty = trio.Event()

    def remove(self, connection: Connection) -> None:
        """It is over, and out of all its rooms."""
        self.connections.remove(connection)
        if not self.connections:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Until nobody is connected; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.connections:
            await self._empty.wait()

    def new_id(self) -> str:
        """An id no other connection on any node has: 64 random bits."""
        return secrets.token_hex(8)

    def knows(self, name: str) -> bool:
        """Whether a room of this name can be joined."""
        return len(name.encode()) <= self.settings.max_room_name_bytes and self.routes.match(name) is not None

    async def join(
        self, name: str, connection: Connection, token: str | None, welcome: Callable[[Member, object], None]
    ) -> Member:
        """A new member of the room ``name``; ``welcome`` sends it what ``on_join`` returned.

        Raises:
            UnknownRoom: no route matches, or the name is too long.
            JoinRefused: the room does not want this peer.
            RoomFailed: the room could not be opened.
        """
        while (active := self.rooms.get(name)) is not None and active.ending:
            await active.closed.wait()
        if active is None:
            active = self._open(name)
        active.take_place()
        member = Member(active, connection, token)
        await active.join(member, lambda state: welcome(member, state))
        return member

    def _open(self, name: str) -> ActiveRoom:
        match = self.routes.match(name) if self.knows(name) else None
        if match is None:
            raise UnknownRoom(name)
        room_class, params = match
        active = ActiveRoom(room_class(), params, name, self.backplane, self.settings, self.budget)
        self.rooms[name] = active
        self._nursery.start_soon(self._run, active, name=f"room {name}")
        return active

    async def _run(self, active: ActiveRoom) -> None:
        try:
            await active.run()
        finally:
            del self.rooms[active.room.name]
            active.closed.set()
