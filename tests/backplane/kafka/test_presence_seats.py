"""Seats that others interfere with, that are many, and that close when it is hard to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster
from tests.backplane.kafka.presence_log import PresenceLog
from tests.backplane.presence_course import ROOM
from tests.backplane.processes import until
from trioroom.backplane import removals
from trioroom.backplane.base import PresenceSeat
from trioroom.backplane.kafka import KafkaBackplane, KafkaSettings, open_kafka, presence, presence_seat
from trioroom.backplane.kafka.presence_records import Beat, Dead, Gone, Row, SeatId
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.kafka
SETTINGS = KafkaSettings(probe_interval=0.2, max_backoff=0.1, fetch_wait=0.01, partitions=1)
IMPATIENT = attrs.evolve(SETTINGS, timeout=1.0)
"""For who is to be told that the broker is away. On a busy machine one that is there may take as long."""


@attrs.frozen
class Pair:
    """A seat with a row, and what another node is told of it."""

    here: KafkaBackplane
    seat: PresenceSeat
    watcher: Watcher
    log: PresenceLog

    async def our_seat(self) -> SeatId:
        [seat] = [seat for seat in await self.log.seats() if seat.node == self.here.presence.node]
        return seat


@pytest.fixture
async def pair(lasting: LastingServer) -> AsyncIterator[Pair]:
    watcher = Watcher()
    with trio.fail_after(30):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            open_kafka(lasting.url, settings=SETTINGS) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as seat,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            seat.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"))
            yield Pair(here, seat, watcher, PresenceLog(lasting.bootstrap))


async def test_row_that_somebody_takes_away_is_written_again(pair: Pair) -> None:
    seat = await pair.our_seat()
    await pair.log.say(Row(seat, "ann", None), Row(seat, "ghost", b"2"))

    async def corrected() -> bool:
        return await pair.log.rows() == [Row(seat, "ann", b"1")]

    await until(corrected, "the row is there, and the other one is not")
    await pair.watcher.wait_rows(("ann", b"1"))


async def test_node_that_somebody_says_is_dead_goes_on_as_another_one(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    node = pair.here.presence.node
    await pair.log.say(Dead(node, is_dead=True))
    await pair.watcher.wait(lambda: pair.watcher.gone != [])
    await pair.watcher.wait_rows(("ann", b"1"))
    assert pair.here.presence.node != node
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    pair.seat.remove("ann")
    await pair.watcher.wait_rows()


async def test_node_that_somebody_says_has_left_goes_on_as_another_one(pair: Pair) -> None:
    node = pair.here.presence.node
    await pair.log.say(Beat(node, lives=False))
    await pair.watcher.wait(lambda: pair.watcher.gone != [])
    await pair.watcher.wait_rows(("ann", b"1"))
    assert pair.here.presence.node != node


async def test_seat_that_somebody_says_is_closed_goes_on_as_another_one(pair: Pair) -> None:
    seat = await pair.our_seat()
    await pair.log.say(Gone(seat, is_gone=True))
    await pair.watcher.wait(lambda: pair.watcher.gone == [str(seat)])
    await pair.watcher.wait_rows(("ann", b"1"))
    pair.seat.put("bob", b"2")
    await pair.watcher.wait_rows(("ann", b"1"), ("bob", b"2"))


@pytest.fixture
def refreshed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_seat, "_REFRESH_INTERVAL", 0.5)
    monkeypatch.setattr(presence, "_REFRESH_LOOK", 0.05)


@pytest.mark.usefixtures("refreshed_soon")  # before the nodes are there
async def test_rows_are_written_again_after_a_while(pair: Pair) -> None:
    """As a topic that is not compacted drops what is old."""
    async with pair.here.presence.open("another", Watcher(), 0.02) as seat:
        seat.put("bob", b"2")

        async def written_again() -> bool:
            values = [key for key, value in await pair.log.records() if value and b"another/bob" in key]
            return len(values) >= 3

        await until(written_again, "the row, twice more")


async def test_seat_without_rows_writes_nothing(pair: Pair) -> None:
    async with pair.here.presence.open(ROOM, Watcher(), 0.02):
        pass
    async with pair.here.presence.open("another", Watcher(), 0.02) as seat:
        seat.put("bob", b"2")
        seat.remove("bob")
    assert not [key for key, _ in await pair.log.records() if key.startswith(b"pg") or b"bob" in key]


async def test_many_rooms_that_close_at_once_leave_nothing(mock_cluster: MockCluster) -> None:
    """Within the time that each has, and not one after the other."""
    for topic in ("rooms", "presence"):
        mock_cluster.create_topic(f"trioroom.{topic}", 1, 3)
    log, close = PresenceLog(mock_cluster.bootstrap), trio.Event()
    with trio.fail_after(60):
        async with open_kafka(mock_cluster.url, settings=SETTINGS) as here, trio.open_nursery() as nursery:

            async def hold(number: int) -> None:
                async with here.presence.open(f"room {number}", Watcher(), 0.02) as seat:
                    for user in ("bob", "cid"):
                        seat.put(user, b"2")
                    await close.wait()

            for number in range(100):
                nursery.start_soon(hold, number)

            async def written() -> bool:
                return len(await log.rows()) == 200

            await until(written, "the rows are there")
            mock_cluster.set_round_trip(0.1)
            close.set()
        assert await log.kept() == []


async def test_more_seats_than_a_node_can_remember_go_with_its_id(
    mock_cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "MAX_OWED", 3)
    monkeypatch.setattr(removals, "CLOSE_TIMEOUT", 0.1)
    for topic in ("rooms", "presence"):
        mock_cluster.create_topic(f"trioroom.{topic}", 1, 3)
    settings = attrs.evolve(SETTINGS, presence_lease=4.0)
    watchers = [Watcher() for _ in range(5)]
    stays = Watcher()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_kafka(mock_cluster.url, settings=settings))
            there = await stack.enter_async_context(open_kafka(mock_cluster.url, settings=settings))
            seat = await stack.enter_async_context(here.presence.open("stays", Watcher(), 0.02))
            await stack.enter_async_context(there.presence.open("stays", stays, 0.02))
            seat.put("ann", b"1")
            node = here.presence.node
            for number, watcher in enumerate(watchers):
                await stack.enter_async_context(there.presence.open(f"room {number}", watcher, 0.02))
            async with AsyncExitStack() as rooms:
                for number, watcher in enumerate(watchers):
                    ours = await rooms.enter_async_context(here.presence.open(f"room {number}", Watcher(), 0.02))
                    ours.put("ghost", b"1")
                    await watcher.wait_count(1)
                mock_cluster.push_errors(ApiKey.PRODUCE, *[7] * 1_000)  # REQUEST_TIMED_OUT
            mock_cluster.clear_errors(ApiKey.PRODUCE)
            assert here.presence.node != node
            for watcher in watchers:
                await watcher.wait_count(0)
            await stays.wait_rows(("ann", b"1"))


async def test_records_that_go_together_stand_in_their_order(mock_cluster: MockCluster) -> None:
    for topic in ("rooms", "presence"):
        mock_cluster.create_topic(f"trioroom.{topic}", 1, 3)
    log = PresenceLog(mock_cluster.bootstrap)
    with trio.fail_after(30):
        async with open_kafka(mock_cluster.url, settings=attrs.evolve(SETTINGS, max_queued_publications=100)) as node:
            keys = [b"x%d" % number for number in range(1_000)]  # more than there is room for at once
            await node.presence._log.produce_all(0, [(key, b"") for key in keys])
            assert [key for key, _ in await log.records() if key.startswith(b"x")] == keys


async def test_topic_with_more_partitions_is_used_as_if_it_had_one(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("trioroom.rooms", 1, 3)
    mock_cluster.create_topic("trioroom.presence", 4, 3)
    watcher = Watcher()
    with trio.fail_after(30):
        async with (
            open_kafka(mock_cluster.url, settings=SETTINGS) as here,
            open_kafka(mock_cluster.url, settings=SETTINGS) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as seat,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            for number in range(20):
                seat.put(f"user {number}", b"1")
            await watcher.wait_count(20)
            kept = await PresenceLog(mock_cluster.bootstrap).kept()  # of the first partition
            assert sum(isinstance(each, Row) for each in kept) == 20
            assert sum(isinstance(each, Beat) for each in kept) == 2


async def test_group_of_records_of_which_one_is_refused_is_refused(mock_cluster: MockCluster) -> None:
    for topic in ("rooms", "presence"):
        mock_cluster.create_topic(f"trioroom.{topic}", 1, 3)
    with trio.fail_after(30):
        async with open_kafka(mock_cluster.url, settings=SETTINGS) as node:
            mock_cluster.push_errors(ApiKey.PRODUCE, 29)  # TOPIC_AUTHORIZATION_FAILED
            with pytest.raises(BackplaneError, match="Write"):
                await node.presence._log.produce_all(0, [(b"x", b""), (b"y", b"")])


async def test_seat_is_not_opened_while_the_broker_is_away(lasting: LastingServer) -> None:
    with trio.fail_after(30):
        async with open_kafka(lasting.url, settings=IMPATIENT) as node:
            lasting.stop()
            with pytest.raises(BackplaneUnavailable):
                async with node.presence.open(ROOM, Watcher(), 0.02):
                    pass
            lasting.resume()
