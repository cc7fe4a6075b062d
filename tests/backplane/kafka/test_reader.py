"""How far the reader is behind, before it has read anything; and that it finds another log in the place of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.servers import NoidaServer
from tests.backplane.processes import free_port
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.reader import LogLost, Reader
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


def make_topic(bootstrap: str) -> None:
    """With one partition; blocks."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [made] = admin.create_topics([NewTopic("trioroom.rooms", 1, 1)]).values()
    made.result(10)


def write(bootstrap: str, *values: bytes) -> None:
    """To that partition; blocks."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce("trioroom.rooms", value, b"t", 0)
    assert producer.flush(10) == 0


async def test_log_that_was_only_away_is_read_on_without_a_hole_and_nothing_twice(lasting: LastingServer) -> None:
    taker = Taker()
    reader = Reader(parse_location(lasting.url), {b"t": taker})
    make_topic(lasting.bootstrap)
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
    make_topic(noida.bootstrap)
    write(noida.bootstrap, *[b"ours"] * 10)

    async def lose() -> None:
        async with trio.open_nursery() as nursery:
            with noida.hidden() as bootstrap:
                noida.forget()
                nursery.start_soon(noida.restart)  # which waits until it is not hidden any more
                await trio.to_thread.run_sync(make_topic, bootstrap)
                await trio.to_thread.run_sync(write, bootstrap, *[b"another's"] * 1_000)

    with (
        trio.fail_after(20),
        pytest.RaisesGroup(
            pytest.RaisesExc(LogLost, match="partition 0 .* another record stands at offset 9"), flatten_subgroups=True
        ),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run, {0: 0}, {0: 10}, lambda error: None)
            await reader.wait_passed(0, 9)
            await lose()
            await trio.sleep_forever()
    assert taker.taken == [(number, b"ours") for number in range(10)]
