"""What nodes make of a log, without a broker: all of them the same, whenever they began to read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.history import History, Kept, Page
from trioroom.backplane.kafka import history_records
from trioroom.backplane.kafka.history_records import Epoch
from trioroom.backplane.kafka.history_view import HistoryView
from trioroom.backplane.kafka.records import HISTORY, Headers, Record
from trioroom.backplane.kafka.settings import KafkaSettings

KEPT = History(5, ttl=60)
OWN = "topic.1.0"
NEW = f"{OWN}.new"


class Reader:
    """A node that reads one partition from an offset on; a record is written each second."""

    def __init__(self, start: int = 0, **settings: float) -> None:
        self.turned = 0
        self.view = HistoryView(KafkaSettings(**settings), 1, self.turn)  # type: ignore[arg-type]  # floats do for all
        self.view.open(0, "topic", start)

    def turn(self, partition: int) -> None:
        self.turned += 1

    def take(self, records: Iterable[Record]) -> list[Kept]:
        return [kept for record in records if (kept := self.view.apply(record)) is not None]

    def page(self, room: str, now: float, offset: int = 0, history: History = KEPT) -> Page:
        return self.view.read_after(room, history, offset, 100, now, self.view[0].place)


def record(offset: int, room: str, value: bytes, headers: Headers) -> Record:
    return Record(0, offset, float(offset), HISTORY, room.encode(), value, headers)


def said(history: History = KEPT, publication_id: str | None = None, epoch: Epoch | None = None) -> Headers:
    return history_records.publication(history, None, publication_id, epoch)


def written(*rooms: str, first: int = 0) -> list[Record]:
    """One publication after another, each its offset."""
    return [record(offset, room, b"%d" % offset, said()) for offset, room in enumerate(rooms, first)]


def payloads(page: Page) -> list[bytes]:
    return [kept.payload for kept in page.kept]


def test_offsets_are_the_log_s_plus_one_and_each_says_what_it_follows() -> None:
    reader = Reader()
    kept = reader.take(written("a", "b", "a", "a", "b"))
    assert [(each.offset, each.follows) for each in kept] == [(1, 0), (2, 0), (3, 1), (4, 3), (5, 2)]
    page = reader.page("a", now=5)
    assert (page.position.epoch, page.position.offset, page.start) == (OWN, 5, 0)
    assert [(each.offset, each.payload, each.age) for each in page.kept] == [(1, b"0", 5), (3, b"2", 3), (4, b"3", 2)]


def test_what_others_write_into_a_wrong_partition_is_dropped() -> None:
    """As Java's clients do, whose partitioner is another one; that of the room may not have been read yet."""
    view = HistoryView(KafkaSettings(), 2, lambda partition: None)
    room = next(name for name in "abcdef" if view.partition_of(name) == 1)
    view.open(0, "topic", 0)
    assert view.apply(record(0, room, b"wrong", said())) is None
    assert view.history_of(room) is None


def test_who_begins_late_has_the_same_from_there_on() -> None:
    log = written("a", "b", "a", "b", "a")
    early, late = Reader(), Reader(start=2)
    early.take(log)
    late.take(log[2:])
    assert late.page("a", now=5).start == 2
    for place in range(2, 6):
        its, mine = early.page("a", 5, place), late.page("a", 5, place)
        assert (mine.position, mine.kept) == (its.position, its.kept)


def test_publication_of_whom_nothing_is_said_is_kept_as_was_said_last() -> None:
    reader = Reader()
    nothing = history_records.publication(None, None, None, None)
    guess = history_records.publication(None, History(2), None, None)
    assert reader.take([record(0, "a", b"nowhere", nothing)]) == []
    assert reader.take([record(1, "a", b"", history_records.say(History(1)))]) == []
    assert len(reader.take([record(offset, "a", b"x", guess) for offset in (2, 3, 4)])) == 3
    assert reader.view.history_of("a") == History(1)
    assert [kept.offset for kept in reader.page("a", 5, history=History(1)).kept] == [5]
    reader.take([record(offset, "b", b"x", guess) for offset in (5, 6, 7)])
    assert reader.view.history_of("b") == History(2), "nobody said anything that is known here, but to the writer"


def test_second_use_of_an_id_is_left_out_and_the_first_is_found() -> None:
    reader = Reader()
    uses = [("a", "x"), ("b", "x"), ("a", "x"), ("a", "y")]
    kept = reader.take(record(offset, room, b"", said(publication_id=key)) for offset, (room, key) in enumerate(uses))
    assert [each.offset for each in kept] == [1, 2, 4]
    assert [reader.view.first_use("a", key) for key in ("x", "y", "z")] == [0, 3, None]


def test_nothing_is_kept_for_longer_than_the_window() -> None:
    reader = Reader(history_window=10, publication_id_ttl=10)
    forever = History(100, ttl=10_000)
    reader.take(record(offset, "a", b"", said(forever)) for offset in range(30))
    page = reader.page("a", 30, history=reader.view.bounded(forever))
    assert (page.start, len(page.kept)) == (20, 10)


def test_room_that_was_quiet_longest_gives_way_and_nobody_is_told_that_it_has_all() -> None:
    reader = Reader(max_history_bytes=4_500)
    reader.take(written("quiet", "a", "a", "b", "c"))
    known, quiet = reader.page("a", 5), reader.page("quiet", 5)
    assert (known.start, payloads(known)) == (0, [b"1", b"2"])
    assert (quiet.start, quiet.kept, quiet.position.offset) == (1, (), 5)
    new = reader.page("never used", 5)
    assert new.start >= 1, "it may have been forgotten too"


def epoch_begins(offset: int, name: str, previous: str) -> Record:
    return record(offset, "", *history_records.begin_epoch(name, previous))


def test_epoch_that_begins_ends_all_histories_of_its_partition() -> None:
    reader = Reader()
    reader.take([*written("a", "a"), epoch_begins(2, NEW, OWN)])
    page = reader.page("a", 3)
    assert (page.position.epoch, page.previous, page.start, page.kept) == (NEW, None, 3, ())
    assert reader.turned == 1
    [kept] = reader.take(written("a", first=3))
    assert (kept.epoch, kept.offset, kept.place_before) == (NEW, 4, 3)


def test_of_two_that_begin_an_epoch_at_once_the_first_does() -> None:
    reader = Reader()
    reader.take([*written("a"), epoch_begins(1, f"{OWN}.one", OWN), epoch_begins(2, f"{OWN}.two", OWN)])
    assert (reader.view[0].epoch_name, reader.turned) == (f"{OWN}.one", 1)
    reader.take([epoch_begins(3, f"{OWN}.two", f"{OWN}.one")])
    assert (reader.view[0].epoch_name, reader.turned) == (f"{OWN}.two", 2)


def test_who_begins_to_read_behind_the_begin_of_an_epoch_learns_of_it() -> None:
    early, late = Reader(), Reader(start=3)
    log = [*written("a"), epoch_begins(1, NEW, OWN)]
    early.take(log)
    epoch = early.view[0].epoch
    assert epoch == Epoch(NEW, 1)
    log += [record(offset, "a", b"%d" % offset, said(epoch=epoch)) for offset in range(2, 6)]
    early.take(log[2:])
    late.take(log[3:])
    assert (late.view[0].epoch, late.page("a", 6).start) == (epoch, 3)
    assert late.page("a", 6, 3).kept == early.page("a", 6, 3).kept
    late.take([record(6, "a", b"", said(epoch=Epoch(f"{OWN}.older", 0)))])
    assert late.view[0].epoch == epoch, "whose writer did not know of this one yet"


def test_epoch_of_another_topic_is_none_of_this_one() -> None:
    """Its writer has not heard yet that the topic was made anew."""
    reader, other = Reader(), "gone.1.0.xyz"
    reader.take([record(0, "a", b"", said(epoch=Epoch(other, 40))), epoch_begins(1, f"{other}2", OWN)])
    assert (reader.view[0].epoch_name, reader.turned) == (OWN, 0)


@pytest.mark.parametrize(
    "headers",
    [
        [("history", b"x 5")],
        [("history", b"0 5.0")],
        [("history", b"5 inf")],
        [("history", b"5 nan")],
        [("what", b"new in a later version")],
        [("history", b"5 5.0"), ("in-force", b"a b")],
        [("what", b"epoch")],
    ],
)
def test_what_makes_no_sense_is_left_out(headers: Headers, caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    assert reader.take([record(0, "a", b"", headers)]) == []
    assert "makes no sense" in caplog.text
    assert reader.take([record(1, "a", b"", said())]) != []


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=40), st.integers(0, 40))
def test_two_readers_agree_on_all_that_both_have_read(rooms: Sequence[str], start: int) -> None:
    log = written(*rooms)
    early, late = Reader(), Reader(start=min(start, len(log)))
    early.take(log)
    late.take(log[start:])
    for room in "abc":
        its, mine = early.page(room, 40), late.page(room, 40)
        assert mine.position.epoch == its.position.epoch
        assert mine.start >= its.start
        assert payloads(mine) == [kept.payload for kept in its.kept if kept.offset > mine.start]
