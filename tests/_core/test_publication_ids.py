"""An id is known in its room for so long, and only so many are."""

from __future__ import annotations

from trioroom._core.publication_ids import PublicationIds


def test_id_is_known_in_its_room_only() -> None:
    ids = PublicationIds[int](ttl=10, max_count=10)
    ids.add("a", "id", 1, now=0)
    assert (ids.find("a", "id", 0), ids.find("b", "id", 0), ids.find("a", "other", 0)) == (1, None, None)


def test_no_id_is_nothing_to_remember() -> None:
    ids = PublicationIds[int](ttl=10, max_count=10)
    ids.add("a", None, 1, now=0)
    assert (ids.find("a", None, 0), len(ids)) == (None, 0)


def test_id_is_forgotten_when_its_time_is_over_whoever_asks() -> None:
    ids = PublicationIds[int](ttl=10, max_count=10)
    for now in range(5):
        ids.add("a", str(now), now, now)
    assert ids.find("a", "0", 9.9) == 0
    assert ids.find("a", "4", 12) == 4
    assert len(ids) == 2
    assert ids.find("another", None, 99) is None
    assert len(ids) == 0


def test_zero_seconds_remember_nothing() -> None:
    ids = PublicationIds[int](ttl=0, max_count=10)
    ids.add("a", "id", 1, now=5)
    assert ids.find("a", "id", 5) is None


def test_beyond_the_bound_the_oldest_go() -> None:
    ids = PublicationIds[int](ttl=10, max_count=3)
    for number in range(5):
        ids.add("a", str(number), number, now=0)
    assert [ids.find("a", str(number), 0) for number in range(5)] == [None, None, 2, 3, 4]


def test_cleared_ids_may_be_used_again() -> None:
    ids = PublicationIds[int](ttl=10, max_count=3)
    ids.add("a", "id", 1, now=0)
    ids.clear()
    assert (ids.find("a", "id", 0), len(ids)) == (None, 0)
