"""The table of who is present: what is told of it is what it has, and a log that was compacted says the same."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioroom.backplane.kafka.presence_records import Beat, Dead, Gone, Row, SeatId, Statement, read, write
from trioroom.backplane.kafka.presence_table import (
    ROW_BYTES,
    SEAT_BYTES,
    Changes,
    News,
    Rows,
    SeatGone,
    Table,
)

ROOMS = ("a", "b")
NAMES = st.sampled_from(["1a", "2b", "3c"])
SEATS = st.builds(SeatId, NAMES, st.integers(1, 3), st.sampled_from(ROOMS))
USERS = st.sampled_from(["ann", "bob", "cid"])
STATEMENTS = st.one_of(
    st.builds(Row, SEATS, USERS, st.sampled_from([None, b"", b"1", b"2"])),
    st.builds(Row, SEATS, USERS, st.sampled_from([b"3", b"4"])),
    st.builds(Beat, NAMES, st.booleans()),
    st.builds(Dead, NAMES, st.booleans()),
    st.builds(Gone, SEATS, st.booleans()),
)


def read_all(statements: Iterable[Statement], max_bytes: int = 1 << 20) -> Table:
    table = Table(max_bytes)
    for statement in statements:
        table.take(statement, 0.0, 0.0, News())
    return table


def shown(table: Table) -> dict[SeatId, Rows]:
    return {seat: dict(rows) for room in ROOMS for seat, rows in table.rows(room).items()}


class Told:
    """Knows nothing but news."""

    def __init__(self) -> None:
        self.seats: dict[SeatId, Rows] = {}

    def hear(self, news: News) -> None:
        for event in news.events:
            if isinstance(event, Changes):
                rows = self.seats.setdefault(event.seat, {})
                rows.update(event.put)
                for user in event.removed:
                    rows.pop(user, None)
                if not rows:
                    del self.seats[event.seat]
            else:
                assert self.seats.pop(event.seat), "gone, and had not been there"


@given(st.lists(st.lists(STATEMENTS, max_size=8), max_size=20))
def test_what_is_told_is_what_the_table_has(batches: list[list[Statement]]) -> None:
    table, told = Table(1 << 20), Told()
    for batch in batches:
        news = News()
        for statement in batch:
            table.take(statement, 0.0, 0.0, news)
        told.hear(news)
        assert told.seats == shown(table)


@given(st.lists(STATEMENTS))
def test_table_counts_its_bytes(statements: list[Statement]) -> None:
    table = read_all(statements)
    seats = [seat for node in table.nodes.values() for seat in node.seats.values() if seat.rows]
    rows = [row for seat in seats for row in seat.rows.items()]
    assert table.bytes == sum(len(user) + len(info) + ROW_BYTES for user, info in rows) + len(seats) * SEAT_BYTES


@given(st.lists(STATEMENTS))
def test_nothing_is_left_when_all_is_taken_back(statements: list[Statement]) -> None:
    table = read_all(statements)
    for name in list(table.nodes):
        table.take(Dead(name, is_dead=True), 0.0, 0.0, News())
    for statement in list(table.left_behind(died_before=1.0)):
        table.take(statement, 0.0, 0.0, News())
    assert (table.nodes, table.bytes, shown(table), table._rooms) == ({}, 0, {}, {})


class Writers:
    """Nodes that do as they should; ``said`` is the log."""

    def __init__(self, seed: int) -> None:
        self.said: list[Statement] = []
        self._random = random.Random(seed)
        self._table = Table(1 << 20)
        self._names = iter(f"{number:x}" for number in range(1, 1_000))
        self._living: dict[str, dict[SeatId, set[str]]] = {}
        self._unaware: dict[str, dict[SeatId, set[str]]] = {}  # have not read that they are dead

    def say(self, statement: Statement) -> None:
        self.said.append(statement)
        self._table.take(statement, float(len(self.said)), 0.0, News())

    def step(self) -> None:
        """One of the things that nodes do."""
        what = self._random.random()
        if what < 0.1 or not self._living:
            node = next(self._names)
            self._living[node] = {}
            self.say(Beat(node, lives=True))
        if self._random.random() < 0.1:
            self._go_on_unaware()
        node = self._random.choice(list(self._living))
        seats = self._living[node]
        if what < 0.6:
            self._change(node, seats)
        elif what < 0.75 and seats:
            self._close(seats)
        elif what < 0.85:
            self._unaware[node] = self._living.pop(node)
            self.say(Dead(node, is_dead=True))
        elif what < 0.9:
            for statement in list(self._table.left_behind(float(len(self.said)))):
                if self._random.random() < 0.2:
                    self._go_on_unaware()
                self.say(statement)
        elif what < 0.95:
            while seats:
                self._close(seats)
            del self._living[node]
            self.say(Beat(node, lives=False))
        else:
            self.say(Beat(node, lives=True))

    def _go_on_unaware(self) -> None:
        if self._unaware:
            node = self._random.choice(list(self._unaware))
            if self._random.random() < 0.5:
                self._change(node, self._unaware[node])
            else:
                del self._unaware[node]

    def _change(self, node: str, seats: dict[SeatId, set[str]]) -> None:
        if not seats or self._random.random() < 0.2:
            seats[SeatId(node, len(self.said) + 1, self._random.choice(ROOMS))] = set()
        seat, there = self._random.choice(list(seats.items()))
        user = self._random.choice(["ann", "bob", "cid"])
        if user in there and self._random.random() < 0.5:
            there.discard(user)
            self.say(Row(seat, user, None))
        else:
            there.add(user)
            self.say(Row(seat, user, b"%d" % len(self.said)))

    def _close(self, seats: dict[SeatId, set[str]]) -> None:
        seat, there = seats.popitem()
        if there:
            self.say(Gone(seat, is_gone=True))
            for user in there:
                self.say(Row(seat, user, None))
            self.say(Gone(seat, is_gone=False))


def compacted(statements: list[Statement], older: int) -> list[Statement]:
    """The last of each key, where it was; tombstones among the ``older`` ones have outlasted delete.retention.ms."""
    last = {write(statement)[0]: number for number, statement in enumerate(statements)}
    return [
        statement
        for number, statement in enumerate(statements)
        if last[write(statement)[0]] == number and (number >= older or write(statement)[1] is not None)
    ]


@settings(max_examples=settings().max_examples * 4)
@given(st.integers(0, 1 << 30), st.integers(0, 60), st.integers(0, 100), st.integers(0, 60))
def test_compacted_log_says_the_same(seed: int, older: int, before: int, after: int) -> None:
    """Kafka compacts what is older, and who starts reads that and then all that has come since; and hides whatever is
    left of nodes that have no beat."""
    writers, lengths = Writers(seed), []
    for steps in (older, before, after):
        for _ in range(steps):
            writers.step()
        lengths.append(len(writers.said))
    head = compacted(writers.said[: lengths[1]], lengths[0])
    whole = read_all(writers.said)
    late = read_all([*head, *writers.said[lengths[1] :]])
    for table in (whole, late):
        table.hide_silent(0.0, known=())
    assert shown(late) == shown(whole)


def test_node_that_was_silent_before_we_came_is_shown_when_it_is_heard() -> None:
    table, seat = Table(1 << 20), SeatId("1a", 1, "a")
    for statement, stamp in (
        (Beat("1a", lives=True), 10.0),
        (Row(seat, "ann", b"1"), 11.0),
        (Beat("2b", lives=True), 40.0),
    ):
        table.take(statement, 0.0, stamp, News())
    table.hide_silent(20.0, known=())
    news = News()
    table.take(Row(seat, "bob", b"2"), 0.0, 41.0, news)
    assert (shown(table), news.events) == ({}, [])
    assert table.nodes["2b"].counts
    table.take(Beat("1a", lives=True), 0.0, 42.0, news)
    assert news.events == [Changes(seat, {"ann": b"1", "bob": b"2"})]
    assert shown(table) == {seat: {"ann": b"1", "bob": b"2"}}


def test_node_whose_death_is_taken_back_is_gone_though_compaction_has_removed_that_it_died() -> None:
    table, news, seat = Table(1 << 20), News(), SeatId("1a", 1, "a")
    table.take(Row(seat, "ann", b"1"), 0.0, 10.0, News())
    table.take(Dead("1a", is_dead=False), 0.0, 10.0, news)
    assert news.events == [SeatGone(seat)]
    assert (table.nodes, table.bytes, shown(table)) == ({}, 0, {})


def test_node_without_a_beat_is_not_shown_to_who_starts() -> None:
    """It has said goodbye and could not take back all of it, and compaction has removed that."""
    table, seat = Table(1 << 20), SeatId("1a", 1, "a")
    table.take(Row(seat, "ann", b"1"), 0.0, 10.0, News())
    table.hide_silent(20.0, known=())
    assert shown(table) == {}


def test_nobody_is_hidden_where_the_log_has_no_clock() -> None:
    table, seat = Table(1 << 20), SeatId("1a", 1, "a")
    table.take(Beat("1a", lives=True), 0.0, -1.0, News())
    table.take(Row(seat, "ann", b"1"), 0.0, -1.0, News())
    table.hide_silent(-1.0 - 30.0, known=())
    assert shown(table) == {seat: {"ann": b"1"}}


def test_hidden_node_that_is_dead_goes_without_a_word() -> None:
    table, news = Table(1 << 20), News()
    table.take(Beat("1a", lives=True), 0.0, 10.0, News())
    table.take(Row(SeatId("1a", 1, "a"), "ann", b"1"), 0.0, 10.0, News())
    table.hide_silent(20.0, known=())
    table.take(Dead("1a", is_dead=True), 0.0, 50.0, news)
    assert (news.events, news.dead) == ([], {"1a"})


def test_node_that_was_shown_is_not_hidden() -> None:
    table = Table(1 << 20)
    table.take(Beat("1a", lives=True), 0.0, 10.0, News())
    table.hide_silent(20.0, known={"1a"})
    assert table.nodes["1a"].counts


def test_rows_beyond_the_bound_are_dropped_and_counted() -> None:
    seat = SeatId("1a", 1, "a")
    size = 3 + 1 + ROW_BYTES
    table = read_all([Row(seat, "ann", b"1"), Row(seat, "bob", b"2"), Row(seat, "cid", b"3")], SEAT_BYTES + 2 * size)
    assert (table.dropped, table.bytes) == (1, SEAT_BYTES + 2 * size)
    table.take(Row(seat, "ann", b"longer"), 0.0, 0.0, News())
    assert table.rows("a") == {seat: {"bob": b"2"}}, "rather none than a wrong one"
    table.take(Row(seat, "cid", b"3"), 0.0, 0.0, News())
    assert table.rows("a") == {seat: {"bob": b"2", "cid": b"3"}}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.one_of(
        st.builds(Row, st.builds(SeatId, NAMES, st.integers(0, 10**15 - 1), TEXTS), TEXTS, st.none() | st.binary()),
        st.builds(Gone, st.builds(SeatId, NAMES, st.integers(0, 10**15 - 1), TEXTS), st.booleans()),
        st.builds(Beat, NAMES, st.booleans()),
        st.builds(Dead, NAMES, st.booleans()),
    )
)
def test_statement_is_read_as_it_was_written(statement: Statement) -> None:
    name, value = write(statement)
    assert read(name.encode(), value or b"") == statement


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_two_rows_have_one_name(room: str, user: str, other_room: str, other_user: str) -> None:
    one, two = Row(SeatId("1a", 1, room), user, b""), Row(SeatId("1a", 1, other_room), other_user, b"")
    assert (write(one)[0] == write(two)[0]) == ((room, user) == (other_room, other_user))


@given(st.binary(), st.binary())
def test_what_anybody_may_write_is_read_or_none_of_ours(name: bytes, value: bytes) -> None:
    for kind in (b"r", b"n", b"d", b"g", b""):
        try:
            read(kind + name, value)
        except ValueError:
            pass


@pytest.mark.parametrize("name", [b"r\xff.1/a/b", b"r1a.1/\xff/b"])
def test_name_that_is_no_text_is_none_of_ours(name: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read(name, b"=")
