"""What every backplane that knows who is present has to pass: the contract of `PresenceStore`, as tests.

Used as `BackplaneConformance` is. Rows cross when the store gets round to it, so the tests wait for what they expect,
under one deadline, and never for a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from trioroom.backplane.base import Backplane, PresenceSeat
from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.conformance import NAMES, ROOM
from trioroom.testing.nodes import ConformanceSuite

INFOS = (b"null", b'{"name":"Ann"}', b"", b"\0\r\n", bytes(range(256)), b"x" * 1_024)
USERS = ("ann", "Ann", "a/b", "a:b", "a b", "a\r\nb", "a\0b", "{a}", "ä", "a\u0308", "😀", "7", "x" * 128)
"""What a store may use as a separator of its own, and what differs by little."""


class Watcher:
    """A listener that keeps the table it is told of; `wait` is how one looks at it."""

    def __init__(self) -> None:
        self.seats: dict[str, dict[str, bytes]] = {}
        """Without those that have no rows."""
        self.gone: list[str] = []
        """Seats of which that was said, in order."""
        self.resyncs = 0
        self._changed = trio.Event()

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """Apply it."""
        rows = self.seats.setdefault(seat, {})
        rows.update(put)
        for user in removed:
            rows.pop(user, None)
        self._tell()

    def seat_gone(self, seat: str) -> None:
        """Apply it."""
        self.gone.append(seat)
        self.seats.pop(seat, None)
        self._tell()

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        """Begin anew."""
        self.resyncs += 1
        self.seats = {seat: dict(rows) for seat, rows in seats.items()}
        self._tell()

    def rows(self) -> list[tuple[str, bytes]]:
        """All rows of all seats, in order."""
        return sorted(row for rows in self.seats.values() for row in rows.items())

    @property
    def count(self) -> int:
        """Of all rows."""
        return sum(map(len, self.seats.values()))

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until ``condition``, which is looked at whenever something has come."""
        while not condition():
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Until the next thing has come."""
        await self._changed.wait()

    async def wait_count(self, count: int) -> None:
        """Until there are so many rows."""
        await self.wait(lambda: self.count == count)

    async def wait_rows(self, *rows: tuple[str, bytes]) -> None:
        """Until these are all rows."""
        await self.wait(lambda: self.rows() == sorted(rows))

    async def wait_row(self, user: str, info: bytes) -> None:
        """Until this is one of them."""
        await self.wait(lambda: (user, info) in self.rows())

    def _tell(self) -> None:
        self.seats = {seat: rows for seat, rows in self.seats.items() if rows}
        self._changed.set()
        self._changed = trio.Event()


class PresenceConformance(ConformanceSuite):
    """The suite."""

    interval = 0.02
    """Seconds between two writes of a seat."""

    @asynccontextmanager
    async def seated(self, node: Backplane, room: str = ROOM) -> AsyncIterator[tuple[PresenceSeat, Watcher]]:
        """A seat, and what it is told of the others."""
        assert node.presence is not None
        watcher = Watcher()
        async with node.presence.open(room, watcher, self.interval) as seat:
            assert watcher.resyncs, "entered before the first resynced"
            yield seat, watcher

    # -- what arrives, and where ---------------------------------------------------------------

    async def test_rows_that_are_put_and_removed_arrive(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(here) as (seat, _), self.seated(there) as (_, watcher):
            seat.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"))
            seat.put("bob", b"2")
            await watcher.wait_rows(("ann", b"1"), ("bob", b"2"))
            seat.remove("ann")
            await watcher.wait_rows(("bob", b"2"))
            seat.put("bob", b"3")
            await watcher.wait_rows(("bob", b"3"))
            seat.remove("bob")
            await watcher.wait_rows()

    async def test_last_write_wins(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(here) as (seat, _), self.seated(there) as (_, watcher):
            for number in range(20):
                seat.put("ann", b"%d" % number)
                seat.remove("ann")
                seat.put("bob", b"%d" % number)
            seat.remove("nobody")
            await watcher.wait_rows(("bob", b"19"))
            seat.remove("bob")
            seat.put("ann", b"again")
            await watcher.wait_rows(("ann", b"again"))
            seat.remove("ann")
            seat.put("ann", b"and again")
            seat.put("end", b"")
            await watcher.wait_rows(("ann", b"and again"), ("end", b""))

    async def test_rows_arrive_as_they_are(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(here) as (seat, _), self.seated(there) as (_, watcher):
            rows = [(user, INFOS[number % len(INFOS)]) for number, user in enumerate(USERS)]
            for user, info in rows:
                seat.put(user, info)
            await watcher.wait_rows(*rows)
            async with self.seated(there) as (_, late):
                await late.wait_rows(*rows)

    async def test_many_rows_at_once(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(here) as (seat, _), self.seated(there) as (_, watcher):
            rows = [(f"user{number}", b"%d" % number) for number in range(2_000)]
            for user, info in rows:
                seat.put(user, info)
            await watcher.wait_rows(*rows)
            for user, _ in rows[1:]:
                seat.remove(user)
            await watcher.wait_rows(rows[0])

    async def test_rows_of_one_user_are_those_of_each_seat(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            _, watcher = await stack.enter_async_context(self.seated(there))
            one, _ = await stack.enter_async_context(self.seated(here))
            async with self.seated(there) as (two, _):
                one.put("ann", b"1")
                two.put("ann", b"2")
                await watcher.wait_rows(("ann", b"1"), ("ann", b"2"))
                assert len(watcher.seats) == 2
                two.remove("ann")
                await watcher.wait_rows(("ann", b"1"))

    async def test_seat_is_not_told_of_its_own_rows(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            one, of_one = await stack.enter_async_context(self.seated(here))
            two, of_two = await stack.enter_async_context(self.seated(there))
            for number in range(5):
                one.put("ann", b"%d" % number)
                await of_two.wait_rows(("ann", b"%d" % number))
                two.put("bob", b"%d" % number)
                await of_one.wait_rows(("bob", b"%d" % number))

    async def test_rooms_are_separate_whatever_their_names(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            watchers: dict[str, Watcher] = {}
            seats: dict[str, PresenceSeat] = {}
            for name in NAMES:
                seats[name], _ = await stack.enter_async_context(self.seated(here, name))
                _, watchers[name] = await stack.enter_async_context(self.seated(there, name))
            for name, seat in seats.items():
                seat.put(name, name.encode())
            for name, watcher in watchers.items():
                await watcher.wait_row(name, name.encode())
            for name, watcher in watchers.items():
                assert watcher.rows() == [(name, name.encode())], f"room {name!r} got what is not its own"

    # -- from when to when -----------------------------------------------------------------------

    async def test_seat_is_told_of_rows_that_were_there_before_it(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(here) as (seat, _), self.seated(there) as (_, witness):
            seat.put("ann", b"1")
            await witness.wait_rows(("ann", b"1"))
            for node in (here, there):
                async with self.seated(node) as (_, watcher):
                    assert watcher.rows() == [("ann", b"1")]

    async def test_closing_a_seat_takes_its_rows_away_and_says_so_once(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(there) as (_, watcher), self.seated(here) as (stays, _):
            stays.put("stays", b"")
            for number in range(3):
                async with self.seated(here) as (seat, _):
                    seat.put("ann", b"%d" % number)
                    seat.put("bob", b"%d" % number)
                    await watcher.wait_rows(("ann", b"%d" % number), ("bob", b"%d" % number), ("stays", b""))
                await watcher.wait_rows(("stays", b""))
                stays.put("end", b"")  # what is said too often has come before it
                await watcher.wait_rows(("end", b""), ("stays", b""))
                stays.remove("end")
                await watcher.wait_rows(("stays", b""))
                assert len(watcher.gone) == len(set(watcher.gone)) == number + 1

    async def test_closing_at_once_leaves_nothing_behind(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(there) as (_, watcher), self.seated(here) as (stays, _):
            for number in range(10):
                async with self.seated(here) as (seat, _):
                    seat.put("ann", b"%d" % number)
                seat.put("ann", b"too late")
                seat.remove("ann")
                stays.put("end", b"%d" % number)
                await watcher.wait_rows(("end", b"%d" % number))

    async def test_seats_of_one_room_that_come_and_go_side_by_side(self) -> None:
        async with self.nodes(2) as nodes, self.seated(nodes[0]) as (_, watcher):

            async def come_and_go(node: Backplane, name: str) -> None:
                for number in range(6):
                    async with self.seated(node) as (seat, _):
                        seat.put(name, b"%d" % number)
                        await watcher.wait_row(name, b"%d" % number)

            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(come_and_go, nodes[number % 2], f"user{number}")
            await watcher.wait_rows()

    # -- cancellation ----------------------------------------------------------------------------

    async def test_opening_and_closing_can_be_cancelled_at_any_moment(self) -> None:
        async with self.nodes(2) as (here, there), self.seated(there) as (stays, watcher):
            for step in range(40):
                with cancel_at_step(step) as scope:
                    async with self.seated(here) as (seat, of_seat):
                        seat.put("ann", b"%d" % step)
                        await trio.lowlevel.checkpoint()  # where rows cross at once nothing below is one
                        await watcher.wait_rows(("ann", b"%d" % step))
                        stays.put("bob", b"%d" % step)
                        await of_seat.wait_rows(("bob", b"%d" % step))
                async with self.seated(here) as (seat, _):
                    seat.put("end", b"%d" % step)
                    await watcher.wait_rows(("end", b"%d" % step))
                await watcher.wait_rows()
                if not scope.cancelled_caught:
                    break
