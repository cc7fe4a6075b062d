"""Nodes that die, stop and lose their broker: in the end all agree on who is there, and nobody leaves twice."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.mock_cluster import MockCluster
from tests.backplane.kafka.presence_log import PresenceLog
from tests.backplane.presence_course import ROOM, Course
from tests.backplane.presence_node import open_process, rows_go_at_once, stop_longer_than_its_lease
from tests.backplane.processes import until
from trioroom.backplane.kafka import KafkaSettings, open_kafka
from trioroom.backplane.kafka.presence_records import Beat, Dead, Gone, Row, SeatId
from trioroom.backplane.kafka.records import PRESENCE
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.kafka
LEASE = 2.5  # of which a busy machine may take a second from a process at once
SETTINGS = KafkaSettings(
    presence_lease=LEASE, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.1, timeout=2.0, fetch_wait=0.01,
    partitions=1,
)  # fmt: skip
PATIENT = attrs.evolve(SETTINGS, presence_lease=5.0)  # as coming back after an outage takes a second or two
QUERY = f"?presence_lease={LEASE}&max_backoff=0.1&timeout=2&fetch_wait=0.01&partitions=1"


async def test_rows_of_a_killed_process_are_gone_within_its_lease_at_once_and_told_once(lasting: LastingServer) -> None:
    watcher, log = Watcher(), PresenceLog(lasting.bootstrap)
    with trio.fail_after(60):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            here.presence.open(ROOM, watcher, 0.1),
            open_process(lasting.url + QUERY, ROOM, 1_000, "a") as a,
        ):
            await watcher.wait_count(1_000)
            a.kill()
            await rows_go_at_once(watcher, within=LEASE + 5)

            async def taken_back() -> bool:
                return len(await log.kept()) == 1  # our own beat

            await until(taken_back, "nothing is left of the dead node")


async def test_process_that_was_stopped_for_longer_than_its_lease_comes_back(lasting: LastingServer) -> None:
    watcher = Watcher()
    with trio.fail_after(60):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            here.presence.open(ROOM, watcher, 0.1) as seat,
            open_process(lasting.url + QUERY, ROOM, 100, "a") as a,
        ):
            seat.put("ours", b"null")
            await watcher.wait_count(100)
            await stop_longer_than_its_lease(a, watcher, LEASE, within=30)


async def test_process_that_was_stopped_takes_nobody_for_dead(lasting: LastingServer) -> None:
    """It has not heard us for longer than a lease, and that was its own doing."""
    watcher = Watcher()
    with trio.fail_after(60):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            here.presence.open(ROOM, watcher, 0.1) as seat,
            open_process(lasting.url + QUERY, ROOM, 1, "a") as a,
        ):
            seat.put("ours", b"null")
            await watcher.wait_count(1)
            for _ in range(2):
                a.send_signal(signal.SIGSTOP)
                await watcher.wait_count(0)  # most of a lease later
                await trio.sleep(LEASE / 2)
                a.send_signal(signal.SIGCONT)
                await watcher.wait_count(1)
            await trio.sleep(LEASE)
            assert [seat.node for seat in await PresenceLog(lasting.bootstrap).seats()].count(here.presence.node) == 1


@pytest.mark.slow
async def test_broker_that_is_away_for_longer_than_a_lease_makes_nobody_leave(lasting: LastingServer) -> None:
    one, two = Watcher(), Watcher()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_kafka(lasting.url, settings=PATIENT))
            there = await stack.enter_async_context(open_kafka(lasting.url, settings=PATIENT))
            first = await stack.enter_async_context(here.presence.open(ROOM, one, 0.05))
            second = await stack.enter_async_context(there.presence.open(ROOM, two, 0.05))
            first.put("ann", b"1")
            second.put("bob", b"2")
            await one.wait_count(1)
            await two.wait_count(1)
            lasting.stop()
            await trio.sleep(6)
            first.put("ann", b"3")
            lasting.resume()
            await two.wait_rows(("ann", b"3"))
            await trio.sleep(6)
            assert one.gone == two.gone == []
            assert one.rows() == [("bob", b"2")]


@pytest.mark.slow
async def test_brokers_that_are_down_for_longer_than_a_lease_make_nobody_leave(mock_cluster: MockCluster) -> None:
    for topic in ("rooms", "presence"):
        mock_cluster.create_topic(f"trioroom.{topic}", 1, 3)
    one, two = Watcher(), Watcher()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_kafka(mock_cluster.url, settings=PATIENT))
            there = await stack.enter_async_context(open_kafka(mock_cluster.url, settings=PATIENT))
            first = await stack.enter_async_context(here.presence.open(ROOM, one, 0.05))
            await stack.enter_async_context(there.presence.open(ROOM, two, 0.05))
            first.put("ann", b"1")
            await two.wait_count(1)
            mock_cluster.set_down()
            await trio.sleep(6)
            mock_cluster.set_up()
            first.put("ann", b"2")
            await two.wait_rows(("ann", b"2"))
            mock_cluster.set_leader("trioroom.presence", 0, 2)
            first.put("ann", b"3")
            await two.wait_rows(("ann", b"3"))
            assert one.gone == two.gone == []


async def test_broker_that_lost_its_data_gets_all_rows_again(lasting: LastingServer) -> None:
    one, two = Watcher(), Watcher()
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_kafka(lasting.url, settings=SETTINGS))
            there = await stack.enter_async_context(open_kafka(lasting.url, settings=SETTINGS))
            first = await stack.enter_async_context(here.presence.open(ROOM, one, 0.05))
            second = await stack.enter_async_context(there.presence.open(ROOM, two, 0.05))
            for number in range(50):
                first.put(f"ann {number}", b"1")
            second.put("bob", b"2")
            await one.wait_count(1)
            await two.wait_count(50)
            lasting.forget()
            await lasting.restart()
            await one.wait(lambda: one.resyncs > 1)
            await two.wait(lambda: two.resyncs > 1)
            await one.wait_count(1)
            await two.wait_count(50)
            late = Watcher()
            async with here.presence.open(ROOM, late, 0.05):
                assert late.rows() == [("bob", b"2")] or late.count == 51
                await late.wait_count(51)
            assert one.gone == two.gone == []


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.thorough)])
async def test_all_agree_in_the_end_whatever_happens(lasting: LastingServer, seed: int) -> None:
    log = PresenceLog(lasting.bootstrap)
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            course = Course(lambda: open_kafka(lasting.url, settings=SETTINGS), nursery, seed)
            for _ in range(3):
                await course.open_node()
            for step in range(30):
                what = course.random.random()
                if step == 10:
                    lasting.forget()
                    await lasting.restart()
                elif step == 20:
                    lasting.stop()
                    await trio.sleep(LEASE)
                    lasting.resume()
                elif what < 0.1:
                    await course.open_node()
                elif what < 0.2:
                    course.close_node()
                elif what < 0.25:
                    await log.put((b"pr", b"nonsense"), (b"", b"x"), (b"pnXYZ", b"="))
                elif what < 0.3:
                    await log.say(*(Row(row.seat, row.user, None) for row in await log.rows()))
                elif what < 0.35:
                    await log.say(
                        *(Dead(each.node, is_dead=True) for each in await log.kept() if isinstance(each, Beat))
                    )
                elif what < 0.4:
                    await log.say(*(Gone(seat, is_gone=True) for seat in await log.seats()))
                else:
                    course.change()
                await trio.sleep(course.random.choice([0, 0.01, 0.05, 0.2]))
            course.change()
            with trio.fail_after(60):
                await course.agree()
            nursery.cancel_scope.cancel()


async def test_rows_of_dead_nodes_are_not_shown_to_who_opens_the_room_later(lasting: LastingServer) -> None:
    log = PresenceLog(lasting.bootstrap)
    with trio.fail_after(60):
        async with open_process(lasting.url + QUERY, ROOM, 10, "a") as a:

            async def written() -> bool:
                return len(await log.rows()) == 10

            await until(written, "its rows are there")
            a.kill()
            await trio.sleep(LEASE + 0.5)
        watcher = Watcher()
        async with open_kafka(lasting.url, settings=SETTINGS) as here, here.presence.open(ROOM, watcher, 0.05):
            assert watcher.count == 0

            async def taken_back() -> bool:
                return not await log.rows()

            await until(taken_back, "nothing is left of the dead node")
            assert watcher.count == 0
            assert watcher.gone == [], "nobody was shown"


async def test_seat_that_is_closed_while_the_broker_is_away_takes_a_moment_only(lasting: LastingServer) -> None:
    with trio.fail_after(60):
        async with open_kafka(lasting.url, settings=SETTINGS) as here:
            async with here.presence.open("stays", Watcher(), 0.05):
                async with here.presence.open(ROOM, Watcher(), 0.05) as seat:
                    seat.put("ann", b"1")
                    await trio.sleep(0.3)
                    lasting.end()
                    began = trio.current_time()
                assert trio.current_time() - began < 8
                await lasting.restart()

                async def gone() -> bool:
                    return not await PresenceLog(lasting.bootstrap).rows()

                await until(gone, "the row is taken back")


async def test_node_without_rows_to_write_writes_little(lasting: LastingServer) -> None:
    log = PresenceLog(lasting.bootstrap)
    settings = attrs.evolve(SETTINGS, presence_lease=3.0)
    with trio.fail_after(60):
        async with open_kafka(lasting.url, settings=settings) as here:
            async with here.presence.open(ROOM, Watcher(), 0.05) as seat:
                for number in range(100):
                    seat.put(f"user {number}", b"null")
                await trio.sleep(1)
                before = len(await log.records())
                await trio.sleep(3)
                assert len(await log.records()) - before <= 2 * 3 + 2, "three beats and three probes in each lease"


async def test_node_that_leaves_takes_all_with_it(lasting: LastingServer) -> None:
    with trio.fail_after(20):
        async with open_kafka(lasting.url, settings=SETTINGS) as here:
            async with here.presence.open(ROOM, Watcher(), 0.05) as seat:
                seat.put("ann", b"1")
                await trio.sleep(0.3)
        log = PresenceLog(lasting.bootstrap)
        assert await log.kept() == []
        assert [value for key, value in await log.records() if not key.startswith(PRESENCE) and value is not None] == []


async def test_record_that_nobody_of_us_wrote_is_dropped_and_told_once(
    lasting: LastingServer, caplog: pytest.LogCaptureFixture
) -> None:
    log, watcher = PresenceLog(lasting.bootstrap), Watcher()
    names = [
        b"",
        b"r",
        b"r/",
        b"rnode.1/a/b",
        b"rab.x/a/b",
        b"rab.1/a",
        b"rab.1/a/b/c",
        b"r\xff.1/a/b",
        b"x",
        b"nXY",
        b"d",
    ]
    with trio.fail_after(60):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            open_kafka(lasting.url, settings=SETTINGS) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as seat,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            await log.put(*((b"p" + name, b"=") for name in names), (b"prab.1/a/b", b"other"), (b"p", None))
            await log.say(Row(SeatId("ab", 1, ROOM), "ghost", b"1"), Row(SeatId("ab", 1, "another"), "ghost", b"1"))
            seat.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"), ("ghost", b"1"))
            await watcher.wait_rows(("ann", b"1"))  # whoever that was does not say that it lives
        dropped = [record for record in caplog.records if "says nothing of who is present" in record.message]
        assert sum(record.levelno >= logging.WARNING for record in dropped) == 2, "one for each node"


async def test_rows_beyond_the_bound_are_not_shown_and_the_log_says_so(
    lasting: LastingServer, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher()
    small = attrs.evolve(SETTINGS, max_presence_bytes=10_000)
    with trio.fail_after(60):
        async with (
            open_kafka(lasting.url, settings=SETTINGS) as here,
            open_kafka(lasting.url, settings=small) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as seat,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            for number in range(100):
                seat.put(f"user {number}", b"1")
            await watcher.wait(lambda: watcher.count > 10)
            for number in range(100):
                seat.remove(f"user {number}")
            await watcher.wait_count(0)
            seat.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"))
        assert len([record for record in caplog.records if "max_presence_bytes=10000" in record.message]) == 1
