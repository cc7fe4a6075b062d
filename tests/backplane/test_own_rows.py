"""What has changed is written at most once per interval, and in the end all that ought to be there is there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import trio
import trio.testing

from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.backplane.own_rows import AT_ONCE, OwnRows
from trioroom.errors import BackplaneError, BackplaneUnavailable


class Broker:
    """Has what is written to it, unless it is to fail."""

    def __init__(self) -> None:
        self.seats: dict[str, dict[str, bytes]] = {}
        self.writes: list[tuple[float, int]] = []
        self.failure: BackplaneError | None = None

    async def write(self, seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.writes.append((trio.current_time(), len(put) + len(removed)))
        if self.failure is not None:
            raise self.failure
        rows = self.seats.setdefault(seat, {})
        rows.update(put)
        for user in removed:
            rows.pop(user, None)

    async def remove(self, seat: str) -> None:
        await trio.lowlevel.checkpoint()
        self.seats.pop(seat, None)


async def start(nursery: trio.Nursery) -> tuple[OwnRows, Broker]:
    own, broker = OwnRows("test", "node.1", interval=1.0), Broker()
    nursery.start_soon(own.run, broker.write, broker.remove)
    await trio.testing.wait_all_tasks_blocked()
    return own, broker


async def test_changes_wait_for_the_interval_and_then_go_together(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        own, broker = await start(nursery)
        own.put("ann", b"1")
        await trio.sleep(0.5)
        own.put("bob", b"1")
        own.put("ann", b"2")
        own.remove("nobody")
        await trio.sleep(5)
        assert broker.writes == [(0.0, 1), (1.0, 2)]
        assert broker.seats == {"node.1": {"ann": b"2", "bob": b"1"}}
        nursery.cancel_scope.cancel()


async def test_changes_during_a_write_wait_for_the_interval_too(autojump_clock: trio.testing.MockClock) -> None:
    own, times = OwnRows("test", "node.1", interval=1.0), []

    async def write(seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        times.append(trio.current_time())
        await trio.sleep(0.1)
        if len(times) < 4:
            own.put("ann", b"%d" % len(times))  # who reads on may answer before we hear that it was written
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own.run, write, Broker().remove)
        own.put("ann", b"0")
        await trio.sleep(20)
        assert [round(after - before, 1) for before, after in itertools.pairwise(times)] == [1.2, 1.2, 1.2]
        nursery.cancel_scope.cancel()


async def test_many_rows_are_written_in_several_steps(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        own, broker = await start(nursery)
        for number in range(AT_ONCE + 1):
            own.put(f"user {number}", b"")
        await trio.sleep(0.5)
        assert [rows for _, rows in broker.writes] == [AT_ONCE, 1]
        nursery.cancel_scope.cancel()


async def test_what_could_not_be_written_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        own, broker = await start(nursery)
        broker.failure = BackplaneUnavailable("away")
        own.put("ann", b"1")
        own.put("bob", b"1")
        await trio.sleep(10)
        assert 5 < len(broker.writes) <= 1 + 10 / RETRY_INTERVAL
        broker.failure = None
        own.remove("bob")
        await trio.sleep(5)
        assert broker.seats == {"node.1": {"ann": b"1"}}
        nursery.cancel_scope.cancel()


async def test_seat_of_another_name_is_whole_before_the_old_one_goes(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        own, broker = await start(nursery)
        own.put("ann", b"1")
        await trio.sleep(5)
        broker.failure = BackplaneUnavailable("away")
        own.rename("node.2")
        own.rename("node.2")
        await trio.sleep(5)
        assert broker.seats == {"node.1": {"ann": b"1"}}
        broker.failure = None
        await trio.sleep(5)
        assert broker.seats == {"node.2": {"ann": b"1"}}
        assert own.names == ["node.2"]
        nursery.cancel_scope.cancel()


async def test_seat_that_is_renamed_amid_a_write_is_whole_before_the_old_one_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        own, broker, shown = OwnRows("test", "node.1", interval=1.0), Broker(), []

        async def write(seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
            await broker.write(seat, put, removed)
            if len(broker.writes) == 2:
                own.rename("node.2")

        async def remove(seat: str) -> None:
            await broker.remove(seat)
            shown.append({user for rows in broker.seats.values() for user in rows})

        nursery.start_soon(own.run, write, remove)
        own.put("ann", b"1")
        await trio.sleep(5)
        own.put("bob", b"1")
        await trio.sleep(5)
        assert shown == [{"ann", "bob"}]
        assert broker.seats == {"node.2": {"ann": b"1", "bob": b"1"}}
        nursery.cancel_scope.cancel()
