"""How far the reader is behind, before it has read anything; and that it finds another log in the place of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest
import trio

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.mock_cluster import MockCluster
from tests.backplane.kafka.servers import NoidaServer
from tests.backplane.kafka.topics import ROOMS, make_topic, write
from tests.backplane.processes import free_port
from trioroom.backplane.kafka.feed import LogLost
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.reader import Reader
from trioroom.backplane.kafka.records import Record
from trioroom.backplane.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


async def test_reader_that_has_started_knows_how_far_it_is_behind() -> None:
    """Else a node takes a long log for read, and then its first probe for lost."""
    reader = Reader(parse_location(f"kafka://127.0.0.1:{free_port()}", KafkaSettings()), {})  # where nobody answers
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run, {0: 0, 1: 7}, {0: 300_000, 1: 7}, lambda error: None)
            assert reader.behind == 300_000
            nursery.cancel_scope.cancel()


class Taker:
    """A handler that keeps all."""

    read_back = 0.0

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes]] = []

    def take(self, records: Sequence[Record]) -> None:
        self.taken += [(record.offset, record.value) for record in records]

    def caught_up(self, partition: int) -> None:
        pass

    def lost(self, partition: int) -> None:
        pass


async def test_log_that_was_only_away_is_read_on_without_a_hole_and_nothing_twice(lasting: LastingServer) -> None:
    taker = Taker()
    reader = Reader(parse_location(lasting.url), {b"t": taker})
    make_topic(lasting.bootstrap, 1)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run, {0: 0}, {0: 0}, lambda error: None)
            for number in range(3):
                await trio.to_thread.run_sync(write, lasting.bootstrap, b"%d" % (2 * number), b"%d" % (2 * number + 1))
                await reader.wait_passed(0, 2 * number + 1)
                lasting.end()
                await lasting.restart()
            await trio.to_thread.run_sync(write, lasting.bootstrap, b"6")
            await reader.wait_passed(0, 6)
            nursery.cancel_scope.cancel()
    assert taker.taken == [(number, b"%d" % number) for number in range(7)]


async def test_another_log_that_has_our_place_too_is_not_taken_for_ours(noida: NoidaServer) -> None:
    taker = Taker()
    reader = Reader(parse_location(noida.url), {b"t": taker})
    make_topic(noida.bootstrap, 1)
    write(noida.bootstrap, *[b"ours"] * 10)

    async def lose() -> None:
        async with trio.open_nursery() as nursery:
            with noida.hidden() as bootstrap:
                noida.forget()
                nursery.start_soon(noida.restart)  # which waits until it is not hidden any more
                await trio.to_thread.run_sync(make_topic, bootstrap, 1)
                await trio.to_thread.run_sync(write, bootstrap, *[b"another's"] * 1_000)

    await read_until_lost(reader, lose)
    assert taker.taken == [(number, b"ours") for number in range(10)]


async def read_until_lost(reader: Reader, lose: Callable[[], Awaitable[None]]) -> None:
    """Read ten records and lose the log, of which that is told."""
    told = pytest.RaisesExc(LogLost, match="partition 0 .* another record stands at offset 9")
    with trio.fail_after(20), pytest.RaisesGroup(told, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run, {0: 0}, {0: 10}, lambda error: None)
            await reader.wait_passed(0, 9)
            await lose()
            await trio.sleep_forever()


async def test_another_log_is_noticed_though_only_its_leader_was_away(mock_cluster: MockCluster) -> None:
    """The client has no error for that: the other two brokers are there."""
    taker = Taker()
    reader = Reader(parse_location(f"{mock_cluster.url}?{PROMPT}"), {b"t": taker})
    mock_cluster.create_topic(ROOMS, 1, 3)
    mock_cluster.set_leader(ROOMS, 0, 2)
    write(mock_cluster.bootstrap, *[b"ours"] * 10)

    async def lose() -> None:
        mock_cluster.set_down(2)
        mock_cluster.delete_topic(ROOMS)
        mock_cluster.create_topic(ROOMS, 1, 3)
        mock_cluster.set_leader(ROOMS, 0, 3)
        await trio.to_thread.run_sync(partial(write, mock_cluster.bootstrap, *[b"another's"] * 20))
        mock_cluster.set_leader(ROOMS, 0, 2)
        mock_cluster.set_up(2)

    await read_until_lost(reader, lose)
    assert taker.taken == [(number, b"ours") for number in range(10)]
