"""Which use of an id is the first, as each reader finds for itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.kafka.publication_ids import FirstUses

USES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 8)), max_size=60)


def shown(uses: FirstUses, *records: tuple[str, str, float]) -> list[int]:
    """What it says of each; the offset is the place in the list."""
    return [
        uses.first(name.encode(), publication_id.encode(), offset, timestamp)
        for offset, (name, publication_id, timestamp) in enumerate(records)
    ]


def test_second_use_is_known_by_the_first() -> None:
    assert shown(FirstUses(10.0, 9), ("a", "x", 0), ("a", "y", 0), ("a", "x", 1), ("b", "x", 1)) == [0, 1, 0, 3]


def test_use_is_forgotten_a_ttl_after_the_last() -> None:
    assert shown(FirstUses(10.0, 9), ("a", "x", 0), ("a", "x", 9), ("a", "x", 18), ("a", "x", 28)) == [0, 0, 0, 3]


def test_beyond_the_bound_the_one_used_longest_ago_is_forgotten() -> None:
    uses = FirstUses(10.0, 2)
    assert shown(uses, ("a", "x", 0), ("a", "y", 0), ("a", "x", 0), ("a", "z", 0), ("a", "x", 0)) == [0, 1, 0, 3, 0]
    assert len(uses) == 2
    assert uses.first(b"a", b"y", 5, 0) == 5


@given(USES, st.integers(0, 60), st.integers(1, 4))
def test_who_reads_back_for_the_ttl_finds_the_same(uses: list[tuple[str, str, int]], start: int, most: int) -> None:
    ttl, now, records = 10.0, 0.0, list[tuple[str, str, float]]()
    for name, publication_id, pause in uses:
        now += pause
        records.append((name, publication_id, now))
    always = shown(FirstUses(ttl, most), *records)
    since = records[start][2] - ttl if start < len(records) else now
    late = FirstUses(ttl, most)
    for offset, (name, publication_id, timestamp) in enumerate(records):
        if timestamp > since:
            first = late.first(name.encode(), publication_id.encode(), offset, timestamp)
            if offset >= start:
                assert (first == offset) == (always[offset] == offset)
