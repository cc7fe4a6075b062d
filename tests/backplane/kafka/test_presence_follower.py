"""Reading the log of who is present, which somebody may have made with more partitions than one."""

from __future__ import annotations

import pytest

from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.presence_follower import Follower
from trioroom.backplane.kafka.presence_records import Row, SeatId, Statement, write
from trioroom.backplane.kafka.records import PRESENCE, Record
from trioroom.backplane.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
SEAT = SeatId("1a", 1, "a")


def record(statement: Statement, partition: int = 0) -> Record:
    name, value = write(statement)
    return Record(partition, 0, -1.0, PRESENCE, name.encode(), value or b"", ())


async def test_only_the_first_partition_says_who_is_present_and_that_all_was_read() -> None:
    log = Log(parse_location("kafka://127.0.0.1", KafkaSettings()))  # which does not run
    reads: list[int] = []
    follower = Follower(log, lambda news: None, lambda: reads.append(len(follower.table.rows("a"))))
    follower.caught_up(1)
    assert not follower.is_whole
    follower.take([record(Row(SEAT, "ann", b"1")), record(Row(SEAT, "bob", b"1"), partition=1)])
    follower.caught_up(0)
    assert reads == [1]
    assert follower.table.rows("a") == {SEAT: {"ann": b"1"}}
    follower.lost(1)
    assert follower.is_whole
    follower.lost(0)
    follower.caught_up(1)
    assert (follower.is_whole, reads) == (False, [1])
