"""Changes of a table are followed in their order; what is missing or is none means a read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.redis import table
from trioroom.backplane.redis.table import Change, Gone, Incoming, parse_rows

PUT = Change("n.1", {"ann": b"1"}, [])


def message(version: int, change: Change | Gone = PUT) -> bytes:
    body = b"-" + change.seat.encode() if isinstance(change, Gone) else change.encode()
    return b"%d:%s" % (version, body)


def read_at(version: int) -> Incoming:
    incoming = Incoming(b"table")
    incoming.begin()
    assert incoming.finish(version) == []
    return incoming


def test_changes_come_out_in_their_order() -> None:
    incoming, gone = read_at(7), Gone("n.2")
    assert incoming.take(message(8)) == [PUT]
    assert incoming.take(message(9, gone)) == [gone]
    assert incoming.take(message(10)) == [PUT]
    assert not incoming.missed


@pytest.mark.parametrize("version", [0, 6, 7, 9, 10**14])
def test_change_out_of_order_means_a_read(version: int) -> None:
    incoming = read_at(7)
    assert incoming.take(message(version)) == []
    assert incoming.missed
    assert incoming.take(message(8)) == [], "the read to come has it"


def test_what_comes_during_a_read_is_applied_after_it_if_the_table_had_it_not() -> None:
    incoming = Incoming(b"table")
    assert incoming.missed, "nothing has been read"
    assert incoming.take(message(1)) == []
    incoming.begin()
    changes = {version: Change("n.1", {"ann": b"%d" % version}, []) for version in range(5, 9)}
    for version, change in changes.items():
        assert incoming.take(message(version, change)) == []
    assert incoming.finish(6) == [changes[7], changes[8]]
    assert incoming.take(message(9)) == [PUT]


@pytest.mark.parametrize("early", [message(9), b"noise"])
def test_hole_in_what_came_during_a_read_means_another_one(early: bytes) -> None:
    incoming = Incoming(b"table")
    incoming.begin()
    for data in (message(7), early, message(8)):
        incoming.take(data)
    assert incoming.finish(6) == [PUT]
    assert incoming.missed


def test_loss_during_a_read_means_another_one() -> None:
    incoming = Incoming(b"table")
    incoming.begin()
    incoming.take(message(7))
    incoming.lose()
    incoming.take(message(8))
    assert incoming.finish(6) == []
    assert incoming.missed


def test_changes_that_wait_for_a_read_are_bounded() -> None:
    incoming = Incoming(b"table")
    incoming.begin()
    for version in range(table.MAX_EARLY):
        incoming.take(message(version + 1))
    assert not incoming.missed
    incoming.take(message(table.MAX_EARLY + 1))
    assert incoming.missed
    assert incoming.finish(0) == []


def test_bytes_that_wait_for_a_read_are_bounded() -> None:
    incoming = Incoming(b"table")
    half = bytes(table.MAX_EARLY_BYTES // 2)
    for _ in range(2):  # the count begins anew with each read
        incoming.begin()
        incoming.take(half)
        incoming.take(half)
        assert not incoming.missed
    incoming.take(b"1")
    assert incoming.missed
    incoming.begin()
    incoming.take(message(1))
    assert incoming.finish(0) == [PUT]


@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(b"8:+".__add__), max_size=5), st.booleans())
def test_any_bytes_are_a_change_or_mean_a_read(messages: list[bytes], early: bool) -> None:
    incoming = Incoming(b"table") if early else read_at(7)
    if early:
        incoming.begin()
    changes = [change for data in messages for change in incoming.take(data)]
    changes += incoming.finish(7) if early else []
    assert len(changes) == len(messages) or incoming.missed or early


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5))
def test_any_table_can_be_read(rows: list[tuple[bytes, bytes]]) -> None:
    version, seats = parse_rows([part for row in rows for part in row])
    assert version >= 0
    assert sum(map(len, seats.values())) <= len(rows)


def test_rows_are_sorted_by_seat_and_a_user_may_have_a_slash() -> None:
    reply = [b"n.1/a/b", b"1", b"v", b"12", b"n.1/c", b"2", b"n.2/c", b"3", b"other", b"4"]
    assert parse_rows(reply) == (12, {"n.1": {"a/b": b"1", "c": b"2"}, "n.2": {"c": b"3"}})


@pytest.mark.parametrize("version", [b"", b"x", b"-1", b"1.5", b"9" * 5_000, "²".encode()])
def test_version_that_is_no_number_is_none(version: bytes) -> None:
    assert parse_rows([b"v", version]) == (0, {})
