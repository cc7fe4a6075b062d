"""What is told of a table is followed by its numbers, and what is missing means a read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.nats import presence_table
from trioroom.backplane.nats.bucket import Entry, Put
from trioroom.backplane.nats.presence_table import (
    Gone,
    Incoming,
    Opened,
    RowChange,
    Table,
    parse_change,
    put_of_mark,
    put_of_row,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SEAT = "node.1"


def entry(put: Put, sequence: int = 1) -> Entry:
    return Entry(put.key, put.payload, sequence, NOW)


def row(write: int, of: int = 1, user: str = "ann", info: bytes | None = b"1", seat: str = SEAT) -> Entry:
    return entry(put_of_row("room", seat, user, info, write, of), sequence=write)


def change(write: int, of: int = 1, user: str = "ann", info: bytes | None = b"1", seat: str = SEAT) -> RowChange:
    return RowChange(seat, user, info, write, write, of)


def followed(*entries: Entry) -> Incoming:
    """One that has read the table and then heard these."""
    incoming = Incoming()
    incoming.begin()
    incoming.finish(Table([]))
    for each in entries:
        incoming.take(each)
    return incoming


def test_what_is_put_is_what_is_parsed() -> None:
    for user in ("ann", "a.b", "", "\0", "*", ">", "ä" * 200, "x" * 128):
        for info in (b"", b"\0\xff", None):
            assert parse_change(row(3, 5, user, info)) == RowChange(SEAT, user, info, 3, 3, 5)
    assert parse_change(entry(put_of_mark("room", SEAT, gone=True))) == Gone(SEAT)
    assert parse_change(entry(put_of_mark("room", SEAT, gone=False), 9)) == Opened(SEAT, 9)


def test_users_of_any_length_have_keys_of_their_own() -> None:
    users = ["x" * 64, "x" * 65, "x" * 1_000, "x" * 1_001, "ä" * 10, "ä" * 11, "ä" * 500, "=C3=A4", "="]
    keys = {put_of_row("room", SEAT, user, b"", 1, 1).key for user in users}
    assert len(keys) == len(users)
    assert max(map(len, keys)) < 100


def test_writes_are_followed_one_after_the_other() -> None:
    incoming = followed(row(7, 2))
    assert incoming.take(row(8, 2, "ann")) == [change(8, 2, "ann")]
    assert incoming.take(row(8, 2, "bob")) == [change(8, 2, "bob")]
    assert incoming.take(row(1, seat="node.2")) == [change(1, seat="node.2")], "each seat counts for itself"
    assert incoming.take(row(9)) == [change(9)]
    assert not incoming.missed


@pytest.mark.parametrize("entries", [[row(9)], [row(6)], [row(8, 2), row(9)]], ids=["a write", "back", "part of one"])
def test_what_is_missing_means_a_read(entries: list[Entry]) -> None:
    incoming = followed(row(7), *entries)
    assert incoming.missed
    assert incoming.take(row(10)) == [], "the read to come has it"


def test_seat_that_is_forgotten_counts_anew() -> None:
    incoming = followed(row(7))
    incoming.forget(SEAT)
    assert incoming.take(row(1)) == [change(1)]
    incoming.forget_nodes({"node"})
    assert incoming.take(row(1)) == [change(1)]
    incoming.forget_nodes({"other"})
    assert incoming.take(row(1)) == [change(1)]
    assert incoming.take(row(9)) == []


def test_what_comes_during_a_read_is_applied_to_what_was_read() -> None:
    incoming = Incoming()
    assert incoming.missed, "nothing has been read"
    assert incoming.take(row(1)) == []
    incoming.begin()
    for early in (row(4, info=b"old"), row(5, user="bob", info=None), row(6, user="eve", info=b"6")):
        assert incoming.take(early) == []
    table = Table([change(5, info=b"new"), change(3, user="bob", info=b"3")])
    incoming.finish(table)
    assert table.rows() == {SEAT: {"ann": b"new", "eve": b"6"}}
    assert incoming.take(row(7)) == [change(7)]


def test_seat_that_is_gone_has_no_rows_whatever_the_read_has_found() -> None:
    incoming = Incoming()
    incoming.begin()
    incoming.take(entry(put_of_mark("room", SEAT, gone=True)))
    table = Table([change(1), change(1, seat="node.2")])
    incoming.finish(table)
    assert table.rows() == {"node.2": {"ann": b"1"}}


def test_marks_are_heard_while_the_table_is_read() -> None:
    incoming = Incoming()
    incoming.begin()
    incoming.take(entry(put_of_mark("room", SEAT, gone=False), 5))
    assert incoming.opened == {SEAT: 5}
    incoming.begin()
    assert incoming.opened == {}


def test_changes_that_wait_for_a_read_are_bounded() -> None:
    incoming, size = Incoming(), presence_table.MAX_EARLY_BYTES // 3
    for _ in range(2):  # the count begins anew with each read
        incoming.begin()
        for write in (1, 2):
            incoming.take(row(write, info=bytes(size)))
        assert not incoming.missed
    incoming.take(row(3, info=bytes(size)))
    assert incoming.missed
    table = Table([])
    incoming.finish(table)
    assert table.rows() == {}


_keys = st.sampled_from(["room", "room.r", "room.r.n.1", "room.r.n.1.u", "room.r.n.1.u.x"]) | st.text(max_size=20)


@given(st.lists(st.tuples(_keys, st.binary(max_size=40) | st.sampled_from([b"open", b"gone", row(1).payload]))))
def test_any_bytes_are_a_change_or_mean_a_read(messages: list[tuple[str, bytes]]) -> None:
    incoming = followed()
    for sequence, (key, payload) in enumerate(messages):
        assert incoming.take(Entry(key, payload, sequence, NOW)) or incoming.missed
