"""Pages meet their ends without a hole, what is too old or too much is gone, and the sum of bytes is right."""

from __future__ import annotations

import itertools
import math

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trioroom._core.archive import ENTRY_BYTES, PAGE_BYTES, ROOM_BYTES, Archive
from trioroom._core.history import History, Kept, Page, Position

ROOM = "room/a"
HISTORY = History(100, ttl=10)


def archive_of(*payloads: bytes, history: History = HISTORY, max_bytes: float = math.inf) -> Archive:
    """An archive of one room, one publication a second from 0 on."""
    numbers = itertools.count(1)
    archive = Archive(max_bytes, lambda: f"epoch {next(numbers)}")
    for now, payload in enumerate(payloads):
        archive.append(ROOM, payload, history, now)
    return archive


def offsets(page: Page) -> list[int]:
    return [kept.offset for kept in page.kept]


def test_age_is_told_and_the_last_moment_still_counts() -> None:
    archive = archive_of(b"0", b"1", b"2")
    page = archive.read_after(ROOM, HISTORY, 0, 10, now=11)
    assert page == Page(
        Position("epoch 1", 3), None, 1, (Kept("epoch 1", 2, b"1", age=10), Kept("epoch 1", 3, b"2", age=9))
    )


def test_page_ends_where_its_bytes_do_but_has_one_at_least() -> None:
    large = bytes(PAGE_BYTES // 2)
    archive = archive_of(large, large, b"", b"0", large + large + b"0")
    assert offsets(archive.read_after(ROOM, HISTORY, 0, 10, 5)) == [1, 2, 3]
    assert offsets(archive.read_after(ROOM, HISTORY, 4, 10, 5)) == [5]
    assert offsets(archive.read_before(ROOM, HISTORY, 6, 10, 5)) == [5]
    assert offsets(archive.read_before(ROOM, HISTORY, 5, 10, 5)) == [2, 3, 4]


def test_history_that_becomes_smaller_is_cut_when_it_is_used() -> None:
    archive = archive_of(*[b"x"] * 8)
    assert offsets(archive.read_after(ROOM, History(3), 0, 10, 8)) == [6, 7, 8]
    assert archive.kept_bytes == ROOM_BYTES + 3 * (1 + ENTRY_BYTES)


@pytest.mark.parametrize("spare", [0, 1])
def test_single_room_over_the_bound_loses_its_oldest_in_the_same_epoch(spare: int) -> None:
    archive = archive_of(*[b"x"] * 8, max_bytes=ROOM_BYTES + 3 * (1 + ENTRY_BYTES) - 1 + spare)
    page = archive.read_after(ROOM, HISTORY, 0, 10, 8)
    assert page.position == Position("epoch 1", 8)
    assert offsets(page) == [7, 8] if not spare else [6, 7, 8]


def test_publication_over_the_bound_is_not_kept_but_has_its_offset() -> None:
    archive = archive_of(b"x", bytes(5_000), max_bytes=4_000)
    page = archive.read_after(ROOM, HISTORY, 0, 10, 2)
    assert page == Page(Position("epoch 1", 2), None, 2, ())


def test_reading_a_room_keeps_it_no_longer_than_others() -> None:
    archive = archive_of(b"x", max_bytes=2 * ROOM_BYTES + 3 * ENTRY_BYTES)
    archive.append("room/b", b"x", HISTORY, 1)
    archive.read_after(ROOM, HISTORY, 0, 10, 2)
    archive.append("room/c", b"x", HISTORY, 3)
    assert offsets(archive.read_after("room/b", HISTORY, 0, 10, 3)) == [1]
    assert archive.read_after(ROOM, HISTORY, 0, 10, 3).position == Position("epoch 4", 0)


def test_position_that_cannot_be_ends_the_epoch_and_any_other_does_not() -> None:
    archive = archive_of(b"x")
    for seen in (Position("epoch 1", 1), Position("epoch 0", 5), None):
        assert archive.read_after(ROOM, HISTORY, 0, 10, 1, seen).position == Position("epoch 1", 1)
    renewed = archive.read_after(ROOM, HISTORY, 0, 10, 1, Position("epoch 1", 2))
    assert renewed == Page(Position("epoch 2", 0), None, 0, ())


@attrs.define
class ModelRoom:
    """All that was ever published in an epoch, and how many of the first of them are gone."""

    epoch: str
    history: History
    published: list[tuple[bytes, float]] = attrs.field(factory=list)
    gone: int = 0

    def cost(self) -> int:
        return ROOM_BYTES + sum(len(payload) + ENTRY_BYTES for payload, _ in self.published[self.gone :])

    def tidy(self, now: float) -> None:
        fresh = [number for number, (_, at) in enumerate(self.published) if now - at <= self.history.ttl]
        oldest = fresh[0] if fresh else len(self.published)
        self.gone = max(self.gone, oldest, len(self.published) - self.history.size)

    def kept(self, now: float) -> list[Kept]:
        everything = [Kept(self.epoch, n, p, now - at) for n, (p, at) in enumerate(self.published, 1)]
        return everything[self.gone :]


ROOMS = st.sampled_from(["a", "b", "c"])
HISTORIES = st.builds(History, st.integers(1, 6), st.sampled_from([2.0, 5.0, 100.0]))
OFFSETS = st.integers(-1, 15)
LIMITS = st.integers(1, 8)


class ArchiveMachine(RuleBasedStateMachine):
    """Against lists of all that was ever published; rooms are in the order of their last publications."""

    @initialize(max_bytes=st.sampled_from([0, 2_500, 5_000, math.inf]))
    def begin(self, max_bytes: float) -> None:
        self.epochs = 0
        self.now = 0.0
        self.archive = Archive(max_bytes, self.next_epoch)
        self.rooms: dict[str, ModelRoom] = {}

    def next_epoch(self) -> str:
        self.epochs += 1
        return f"epoch {self.epochs}"

    def use(self, room: str, history: History) -> ModelRoom:
        """The model of what happens to a room whenever it is used; the archive has had its turn already."""
        if room not in self.rooms:
            self.rooms[room] = ModelRoom(f"epoch {self.epochs}", history)
            self.make_room(room)
        model = self.rooms[room]
        model.history = history
        model.tidy(self.now)
        return model

    def make_room(self, used: str) -> None:
        for room in [room for room in self.rooms if room != used]:
            if self.cost() > self.archive.max_bytes:
                del self.rooms[room]
        model = self.rooms[used]
        while self.cost() > self.archive.max_bytes and model.gone < len(model.published):
            model.gone += 1

    def cost(self) -> int:
        return sum(model.cost() for model in self.rooms.values())

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def let_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(room=ROOMS, payload=st.sampled_from([b"", b"x", bytes(700)]), history=HISTORIES | st.none())
    def append(self, room: str, payload: bytes, history: History | None) -> None:
        kept = self.archive.append(room, payload, history, self.now)
        if history is None:
            if room not in self.rooms:
                assert kept is None
                return
            history = self.rooms[room].history
        model = self.use(room, history)
        self.rooms[room] = self.rooms.pop(room)
        model.published.append((payload, self.now))
        model.tidy(self.now)
        self.make_room(room)
        assert kept == Kept(model.epoch, len(model.published), payload)

    @rule(room=ROOMS, history=HISTORIES, offset=OFFSETS | st.none(), limit=LIMITS)
    def read_after(self, room: str, history: History, offset: int | None, limit: int) -> None:
        page = self.archive.read_after(room, history, offset, limit, self.now)
        kept = self.use(room, history).kept(self.now)
        after = [] if offset is None else [one for one in kept if one.offset > offset]
        self.check(page, room, after[:limit])

    @rule(room=ROOMS, history=HISTORIES, offset=OFFSETS, limit=LIMITS)
    def read_before(self, room: str, history: History, offset: int, limit: int) -> None:
        page = self.archive.read_before(room, history, offset, limit, self.now)
        kept = self.use(room, history).kept(self.now)
        self.check(page, room, [one for one in kept if one.offset < offset][-limit:])

    def check(self, page: Page, room: str, kept: list[Kept]) -> None:
        model = self.rooms[room]
        assert page == Page(Position(model.epoch, len(model.published)), None, model.gone, tuple(kept))

    @rule(room=ROOMS, history=HISTORIES, ahead=st.integers(0, 2))
    def read_with_what_was_seen(self, room: str, history: History, ahead: int) -> None:
        if room in self.rooms:
            model = self.rooms[room]
            seen = Position(model.epoch, len(model.published) + ahead)
            page = self.archive.read_after(room, history, None, 1, self.now, seen)
            if ahead:
                del self.rooms[room]
            self.use(room, history)
            self.check(page, room, [])

    @invariant()
    def bytes_add_up(self) -> None:
        assert self.archive.kept_bytes == self.cost()


TestArchive = ArchiveMachine.TestCase
