"""What a server does at the word of those who run it, be it said here or on another one."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import trio

from trioroom._wire.control import Command, CountMembers, Disconnect, Done, FindRooms, Found, Kick, Result

if TYPE_CHECKING:
    from trioroom._net.connection import Connection
    from trioroom._net.hub import Hub

T = TypeVar("T")
_SLICE = 2_048  # members, rooms or connections looked at between two checkpoints: some 0.3 ms


async def carry_out(hub: Hub, command: Command) -> Result:
    """Do it on this server alone."""
    match command:
        case Disconnect(user=None):
            return await _close([one for one in hub.connections if one.id == command.connection], command)
        case Disconnect(user=str(user)):
            return await _close(await _connections_of(hub, user), command)
        case Kick():
            return await _kick(hub, command)
        case FindRooms():
            return await _find_rooms(hub, command)
        case CountMembers():
            active = hub.rooms.get(command.room)
            return Done(0 if active is None else active.member_count)
    raise AssertionError(command)


async def _connections_of(hub: Hub, user: str) -> Iterable[Connection]:
    """Those whose identity is the user's, or that have a member who is.

    All are looked at, and others run in between: a million members take 0.13 s in one room, 0.6 s in 100,000. An index
    would cost each of them memory for what is rare. Who joins a room behind us is one who came after the order.
    """
    found: dict[Connection, None] = {}
    async for connections in _slices(list(hub.connections)):
        for connection in connections:
            if connection.identity is not None and connection.identity.user == user:
                found[connection] = None
    for active in list(hub.rooms.values()):
        async for members in _slices(active.snapshot()):
            for member in members:
                if member.user == user:
                    found[member._connection] = None
    return found


async def _slices(items: list[T]) -> AsyncIterator[list[T]]:
    for start in range(0, len(items), _SLICE):
        yield items[start : start + _SLICE]
        await trio.lowlevel.checkpoint()


async def _close(connections: Iterable[Connection], command: Disconnect) -> Done:
    closed = 0
    for connection in connections:
        if connection.closing is None:
            connection.close(command.code, command.reason)
            closed += 1
            if closed % _SLICE == 0:
                await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return Done(closed)


async def _kick(hub: Hub, command: Kick) -> Done:
    active = hub.rooms.get(command.room)
    members = [] if active is None else [one for one in active.snapshot() if one.user == command.user]
    for member in members:
        member.leave(command.reason)
    await trio.lowlevel.checkpoint()
    return Done(len(members))


async def _find_rooms(hub: Hub, command: FindRooms) -> Found:
    """A page in the order of names, for which all names are looked at."""
    first: list[str] = []
    names = iter(list(hub.rooms))
    while some := list(islice(names, _SLICE)):
        wanted = (name for name in some if name.startswith(command.prefix) and name > command.after)
        first = heapq.nsmallest(command.limit + 1, [*first, *wanted])
        await trio.lowlevel.checkpoint()
    page = first[: command.limit]
    rooms = [(name, active.member_count) for name in page if (active := hub.rooms.get(name)) is not None]
    return Found(rooms, len(first) > command.limit)
