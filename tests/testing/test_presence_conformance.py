"""The suite for stores of presence can fail: each broken store here breaks one promise, and is caught."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from trioroom.backplane.base import Backplane, PresenceListener, PresenceSeat
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_presence import MemoryPresence
from trioroom.testing import PresenceConformance


class LosesInfos(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, listener, interval) as seat:
            yield Altered(seat)


class Altered:
    """Strips what it is given."""

    def __init__(self, seat: PresenceSeat) -> None:
        self.seat = seat

    def put(self, user: str, info: bytes) -> None:
        self.seat.put(user, info.strip())

    def remove(self, user: str) -> None:
        self.seat.remove(user)


class NeverRemoves(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, listener, interval) as seat:
            yield PutsOnly(seat)


class PutsOnly(Altered):
    """Keeps what it has."""

    def put(self, user: str, info: bytes) -> None:
        self.seat.put(user, info)

    def remove(self, user: str) -> None:
        pass


class IgnoresCase(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room.lower(), listener, interval) as seat:
            yield seat


class TellsOnesOwn(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, listener, interval) as seat:
            yield Echoing(seat, listener)


class Echoing(PutsOnly):
    """Tells its listener of its own rows."""

    def __init__(self, seat: PresenceSeat, listener: PresenceListener) -> None:
        super().__init__(seat)
        self.listener = listener

    def put(self, user: str, info: bytes) -> None:
        self.seat.put(user, info)
        self.listener.rows_changed("own", {user: info}, ())

    def remove(self, user: str) -> None:
        self.seat.remove(user)


class BeginsWithNothing(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, Forgetful(listener), interval) as seat:
            yield seat


class Forgetful:
    """Passes on what changes."""

    def __init__(self, listener: PresenceListener) -> None:
        self.rows_changed = listener.rows_changed
        self.seat_gone = listener.seat_gone
        self._resynced = listener.resynced

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        self._resynced({})


class GoneTwice(MemoryPresence):
    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, Stuttering(listener), interval) as seat:
            yield seat


class Stuttering(Forgetful):
    """Says everything that is gone twice."""

    def __init__(self, listener: PresenceListener) -> None:
        super().__init__(listener)
        self.resynced = listener.resynced  # type: ignore[method-assign]  # this one as it is
        self.seat_gone = self._twice
        self._gone = listener.seat_gone

    def _twice(self, seat: str) -> None:
        self._gone(seat)
        self._gone(seat)


class StaysWhenCancelled(MemoryPresence):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[object] = []

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        opened = super().open(room, listener, interval)
        self.kept.append(opened)
        yield await opened.__aenter__()
        await opened.__aexit__(None, None, None)


FAULTS: list[tuple[type[MemoryPresence], str]] = [
    (LosesInfos, "rows_arrive_as_they_are"),
    (NeverRemoves, "rows_that_are_put_and_removed_arrive"),
    (NeverRemoves, "last_write_wins"),
    (NeverRemoves, "many_rows_at_once"),
    (NeverRemoves, "rows_of_one_user_are_those_of_each_seat"),
    (IgnoresCase, "rooms_are_separate_whatever_their_names"),
    (TellsOnesOwn, "seat_is_not_told_of_its_own_rows"),
    (BeginsWithNothing, "seat_is_told_of_rows_that_were_there_before_it"),
    (GoneTwice, "closing_a_seat_takes_its_rows_away_and_says_so_once"),
    (StaysWhenCancelled, "opening_and_closing_can_be_cancelled_at_any_moment"),
]


class Linked(MemoryBackplane):
    def __init__(self, store: MemoryPresence) -> None:
        super().__init__()
        self._presence = store


class Suite(PresenceConformance):
    def __init__(self, backplane: Backplane) -> None:
        self.backplane = backplane

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [self.backplane] * count


@pytest.mark.parametrize(("fault", "promise"), FAULTS)
async def test_broken_promise_is_caught(fault: type[MemoryPresence], promise: str, autojump_clock: MockClock) -> None:
    caught: list[Exception] = []
    try:
        await getattr(Suite(Linked(fault())), f"test_{promise}")()
    except* (AssertionError, trio.TooSlowError) as group:
        caught += group.exceptions
    assert caught
