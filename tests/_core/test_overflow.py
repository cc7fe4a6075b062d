"""What the policies promise, against a model that keeps every message in a list, the lost ones too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trioroom._core.backlog import Verdict
from trioroom._core.batch import Batch, batch_of, single
from trioroom._core.budget import Budget
from trioroom._core.outbox import Outbox
from trioroom._core.overflow import CONTROL, Feed, Overflow, SlowConsumer, Tally
from trioroom._core.statistics import Lag

# -- the count -----------------------------------------------------------------------------------


def test_what_is_not_queued_dropped_or_unsent_was_sent() -> None:
    assert Tally().sent == 0
    assert Tally(offered=10, queued=1, dropped=2, unsent=3, slow_consumers=4).sent == 4


def test_tallies_add_up() -> None:
    total = Tally(1, 2, 3, 4, 5)
    total.add(Tally(10, 20, 30, 40, 50))
    assert total == Tally(11, 22, 33, 44, 55)


def test_two_feeds_with_the_same_rules_are_two() -> None:
    tally = Tally()
    assert Feed(Overflow.LATEST, tally, CONTROL.gap) != Feed(Overflow.LATEST, tally, CONTROL.gap)


def test_control_frames_are_sent_whole_or_the_connection_ends() -> None:
    assert CONTROL.policy is Overflow.DISCONNECT
    assert CONTROL.max_messages is CONTROL.max_bytes is None
    assert CONTROL.gap(3) == b""


@pytest.mark.parametrize("policy", Overflow)
def test_policies_have_the_names_that_statistics_show(policy: Overflow) -> None:
    assert Overflow(policy.name.lower()) is policy


# -- the policies ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Item:
    """One message on its way."""

    feed: Feed
    frame: bytes
    key: str | None
    since: float
    lost: bool = False


@attrs.define
class Model:
    """An outbox as a list; what is lost stays in it until the member is told, in its place or the next of its room."""

    max_messages: int
    max_bytes: int
    items: list[Item] = attrs.Factory(list)
    hand: list[Item] = attrs.Factory(list)
    done: int = 0  # bytes of the hand that are out
    seen: list[Feed] = attrs.Factory(list)  # by when the first of each came

    def waiting(self, *feeds: Feed) -> list[Item]:
        return [item for item in self.items if not item.lost and (not feeds or item.feed in feeds)]

    def lost(self, feed: Feed) -> list[Item]:
        return [item for item in self.items if item.lost and item.feed is feed]

    def present(self) -> list[Feed]:
        return [feed for feed in self.seen if any(item.feed is feed for item in self.items)]

    def bounds(self, feed: Feed) -> tuple[int, int]:
        return feed.max_messages or self.max_messages, feed.max_bytes or self.max_bytes

    def has_too_much(self, feed: Feed) -> bool:
        most = [(self.max_messages, self.max_bytes), *map(self.bounds, self.seen)]
        together = max(messages for messages, _ in most), max(size for _, size in most)
        return not (fit(self.waiting(feed), self.bounds(feed)) and fit(self.waiting(), together))

    def add(self, feed: Feed, frame: bytes, key: str | None, now: float) -> Item:
        if feed not in self.seen:
            self.seen.append(feed)
        self.items.append(Item(feed, frame, key, now))
        return self.items[-1]

    def lose(self, item: Item) -> None:
        item.lost = True
        item.feed.tally.dropped += 1

    def offer(self, feed: Feed, frames: list[bytes], keys: list[str | None], now: float) -> Verdict:
        dropped = feed.tally.dropped
        if feed.policy is Overflow.LATEST:
            for frame, key in zip(frames, keys, strict=False):
                self.keep_latest(feed, frame, key, now)
        else:
            new = [self.add(feed, frame, None, now) for frame in frames]
            if feed.policy is Overflow.DROP_OLDEST:
                self.drop_oldest(feed)
            elif feed.policy is Overflow.DROP_NEWEST:
                while new and self.has_too_much(feed):
                    self.lose(new.pop())
            else:
                droppable = [each for each in self.seen if each.policy is not Overflow.DISCONNECT]
                while self.has_too_much(feed) and droppable and (others := self.waiting(*droppable)):
                    self.lose(others[0])
                if self.has_too_much(feed):
                    del self.items[-len(new) :]
                    feed.tally.dropped += len(new)
                    return Verdict.OVERFLOW
        return Verdict.DROPPED if feed.tally.dropped > dropped else Verdict.QUEUED

    def drop_oldest(self, feed: Feed) -> None:
        while self.has_too_much(feed) and (waiting := self.waiting(feed)):
            self.lose(waiting[0])

    def keep_latest(self, feed: Feed, frame: bytes, key: str | None, now: float) -> None:
        same = [item for item in self.waiting(feed) if item.key == key is not None]
        if same:
            first = self.items.index(self.waiting(feed)[0])
            self.items.insert(first, Item(feed, same[0].frame, None, now))
            self.lose(self.items[first])
            same[0].frame, same[0].since = frame, now
        else:
            self.add(feed, frame, key, now)
        self.drop_oldest(feed)

    def pieces(self) -> Iterator[Item]:
        """What is to go out, one frame after another; what was asked for has left the list."""
        while self.items:
            firsts = [self.items.index((self.waiting(feed) or self.lost(feed)[-1:])[0]) for feed in self.present()]
            feed, end = self.items[min(firsts)].feed, min(firsts) + 1
            if not self.items[end - 1].lost:
                end -= 1
            lost = [item for item in self.items[:end] if item.feed is feed]
            if lost:
                self.items = [item for item in self.items if item not in lost]
                if gap := feed.gap(len(lost)):
                    yield Item(ANSWERS, gap, None, math.inf)
            else:
                yield self.items.pop(end)

    def take(self, max_bytes: float) -> bytes:
        if not self.hand:
            pieces = self.pieces()
            while sum(len(item.frame) for item in self.hand) < max_bytes and (item := next(pieces, None)):
                self.hand.append(item)
        return b"".join(item.frame for item in self.hand)[self.done :]

    def advance(self, size: int) -> None:
        self.done += size
        while self.hand and self.done >= len(self.hand[0].frame):
            self.done -= len(self.hand.pop(0).frame)


def fit(items: list[Item], bounds: tuple[int, int]) -> bool:
    return len(items) <= bounds[0] and sum(len(item.frame) for item in items) <= bounds[1]


ANSWERS = Feed(CONTROL.policy, Tally(), CONTROL.gap)  # the model's `CONTROL`
Rules: TypeAlias = tuple[Overflow, Callable[[int], bytes], int | None, int | None]


def feed_of(policy: Overflow, gap: Callable[[int], bytes], max_messages: int | None, max_bytes: int | None) -> Feed:
    return Feed(policy, Tally(), gap, max_messages, max_bytes)


def gap_of(name: str, lost: int) -> bytes:
    return f"<{name} lost {lost}>".encode()


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)
KEYS = st.lists(st.sampled_from(["k", "l", None]), min_size=5, max_size=5)
GAPS = st.sampled_from([partial(gap_of, "a"), partial(gap_of, "b"), CONTROL.gap])
RULES = st.tuples(st.sampled_from(Overflow), GAPS, st.none() | st.integers(1, 6), st.none() | st.integers(1, 30))


class OutboxMachine(RuleBasedStateMachine):
    """Two rooms and the control frames share an outbox; when it is over there comes another one."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(math.inf)
        self.now = 1.0
        self.frames = 0
        self.batches: list[Batch] = []
        self.control_queued = CONTROL.tally.queued

    @initialize(rules=st.tuples(RULES, RULES), max_messages=st.integers(1, 6), max_bytes=st.integers(1, 30))
    def open(self, rules: tuple[Rules, Rules], max_messages: int, max_bytes: int) -> None:
        self.bounds = max_messages, max_bytes
        self.rooms, self.twins = [[feed_of(*each) for each in rules] for _ in range(2)]  # the model counts for itself
        self.anew()

    def anew(self) -> None:
        assert self.budget.used == 0
        assert all(batch.holders == 0 for batch in self.batches)
        self.outbox = Outbox(*self.bounds, self.budget)
        self.model = Model(*self.bounds)
        self.fresh = True

    def new_frames(self, room: int, sizes: list[int]) -> list[bytes]:
        """No two are alike."""
        self.rooms[room].tally.offered += len(sizes)
        self.twins[room].tally.offered += len(sizes)
        self.frames += len(sizes)
        return [bytes([(self.frames - number) % 256]) * size for number, size in enumerate(sizes)]

    def batch(self, room: int, frames: list[bytes], keys: list[str | None]) -> Batch:
        feed = self.rooms[room]
        self.batches.append(batch_of(feed, frames, keys[: len(frames)] if feed.policy is Overflow.LATEST else None))
        return self.batches[-1]

    @precondition(lambda self: self.fresh)
    @rule(room=st.integers(0, 1), sizes=SIZES, keys=KEYS, data=st.data())
    def begin(self, room: int, sizes: list[int], keys: list[str | None], data: st.DataObject) -> None:
        frames, feed = self.new_frames(room, sizes), self.twins[room]
        sent = data.draw(st.integers(0, sum(sizes) - 1))
        verdict = self.outbox.begin(self.batch(room, frames, keys), sent, self.now)
        while len(frames[0]) <= sent:
            sent -= len(frames.pop(0))
            keys = keys[1:]
        if sent:
            self.model.hand, self.model.done = [Item(feed, frames.pop(0), None, self.now)], sent
            self.model.seen.append(feed)
            keys = keys[1:]
        if feed.policy is Overflow.DISCONNECT:
            for frame in frames:
                self.model.add(feed, frame, None, self.now)
            assert verdict is Verdict.QUEUED
        else:
            assert verdict is self.model.offer(feed, frames, keys, self.now)
        self.fresh = False

    @rule(room=st.integers(0, 1), sizes=SIZES, keys=KEYS)
    def offer(self, room: int, sizes: list[int], keys: list[str | None]) -> None:
        frames = self.new_frames(room, sizes)
        verdict = self.outbox.offer(self.batch(room, frames, keys), self.now)
        assert verdict is self.model.offer(self.twins[room], frames, keys, self.now)
        self.fresh = False

    @rule(size=st.integers(1, 6), forced=st.booleans())
    def answer(self, size: int, forced: bool) -> None:
        frame = b"!" * size
        if forced:
            self.outbox.force(frame, self.now)
            self.model.add(ANSWERS, frame, None, self.now)
        else:
            verdict = self.outbox.offer(single(CONTROL, frame), self.now)
            assert verdict is self.model.offer(ANSWERS, [frame], [None], self.now)
        self.fresh = False

    @rule(max_bytes=st.integers(1, 40), data=st.data())
    def send(self, max_bytes: int, data: st.DataObject) -> None:
        head = self.outbox.head(max_bytes)
        assert head == self.model.take(max_bytes)
        sent = data.draw(st.integers(0, len(head)))
        self.outbox.advance(sent)
        self.model.advance(sent)

    @rule()
    def clear(self) -> None:
        self.outbox.clear(SlowConsumer.OVERFLOW)
        for item in self.model.waiting():
            self.model.lose(item)
        self.model.items.clear()

    @rule()
    def discard(self) -> None:
        self.outbox.discard()
        for item in self.model.waiting() + self.model.hand:
            item.feed.tally.unsent += 1
        self.anew()

    @precondition(lambda self: not self.model.hand)
    @rule()
    def take_all(self) -> None:
        batches = self.outbox.take_all()
        assert b"".join(batch.data for batch in batches) == self.model.take(math.inf)
        assert sum(len(batch.ends) for batch in batches) == len(self.model.hand)
        assert all(batch.holders == 0 for batch in batches)
        self.anew()

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def agrees_with_the_model(self) -> None:
        waiting, queued = self.model.waiting(), self.model.waiting() + self.model.hand
        age = max([0.0, *(self.now - item.since for item in queued)])
        assert self.outbox.lag(self.now) == Lag(len(waiting), sum(len(item.frame) for item in waiting), age)
        assert self.outbox.queued_bytes == sum(len(item.frame) for item in waiting)
        assert bool(self.outbox) is bool(self.model.items or self.model.hand)
        for room, twin in zip(self.rooms, self.twins, strict=True):
            twin.tally.queued = sum(item.feed is twin for item in queued)
            twin.tally.slow_consumers = room.tally.slow_consumers
            assert room.tally == twin.tally
            assert twin.policy is Overflow.DISCONNECT or fit(self.model.waiting(twin), self.model.bounds(twin))
        assert CONTROL.tally.queued - self.control_queued == sum(item.feed is ANSWERS for item in queued)

    @invariant()
    def counts_what_is_sent(self) -> None:
        for room in self.rooms:
            assert 0 <= room.tally.sent <= room.tally.offered

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.send_all()
            self.discard()

    def send_all(self) -> None:
        while self.outbox:
            head = self.outbox.head(10)
            assert head == self.model.take(10)
            self.outbox.advance(len(head))
            self.model.advance(len(head))
        assert not self.model.items
        for room in self.rooms:
            assert room.tally.queued == 0
        assert CONTROL.tally.queued == self.control_queued


TestOutboxAgainstModel = pytest.mark.untraced(OutboxMachine.TestCase)
