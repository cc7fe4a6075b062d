"""Keys, and where they are."""

from __future__ import annotations

from collections import Counter

import pytest

from trioroom.backplane.kafka.records import Record, partition_of


@pytest.mark.parametrize(
    ("key", "partitions", "partition"), [(b"rchat/a", 8, 5), (b"rchat/a", 7, 0), (b"hchat/a", 7, 1), (b"rchat/a", 1, 0)]
)
def test_partition_of_a_key_never_changes(key: bytes, partitions: int, partition: int) -> None:
    assert partition_of(key, partitions) == partition


def test_rooms_are_spread_over_the_partitions() -> None:
    counts = Counter(partition_of(b"rroom/%d" % number, 8) for number in range(8_000))
    assert all(800 < counts[partition] < 1_200 for partition in range(8))


def test_first_header_of_a_name_counts() -> None:
    record = Record(0, 0, 0.0, b"r", b"room", b"", [("id", b"a"), ("id", b"b")])
    assert record.header("id") == b"a"
    assert record.header("other") is None
