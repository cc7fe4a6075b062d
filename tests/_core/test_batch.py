from __future__ import annotations

import gc

import pytest

from trioroom._core.batch import Batch, batch_of, single
from trioroom._core.budget import Budget
from trioroom._core.overflow import Feed, Overflow, Tally


@pytest.fixture
def feed() -> Feed:
    return Feed(Overflow.LATEST, Tally(), lambda lost: b"")


@pytest.fixture
def batch(feed: Feed) -> Batch:
    return batch_of(feed, [b"a", b"bb", b"ccc", b"dddd"], ["k", None, "l", "m"])


def test_frames_are_joined_and_can_be_told_apart(batch: Batch) -> None:
    assert (batch.data, batch.ends) == (b"abbcccdddd", (1, 3, 6, 10))


@pytest.mark.parametrize(
    ("first", "last", "frames"),
    [(0, 4, b"abbcccdddd"), (0, 2, b"abb"), (1, 3, b"bbccc"), (2, 4, b"cccdddd"), (3, 4, b"dddd")],
)
def test_some_of_its_frames(batch: Batch, first: int, last: int, frames: bytes) -> None:
    assert batch.cut(first, last) == frames
    assert batch.size(first, last) == len(frames)
    part = batch.part(first, last)
    assert (part.feed, part.data, part.keys) == (batch.feed, frames, ["k", None, "l", "m"][first:last])
    assert part.ends == tuple(end - batch.size(0, first) for end in batch.ends[first:last])


@pytest.mark.parametrize("index", [0, 2, 4])
def test_no_frames_have_no_size(batch: Batch, index: int) -> None:
    assert batch.size(index, index) == 0


def test_all_frames_are_no_copy(batch: Batch) -> None:
    assert batch.cut(0, 4) is batch.data
    assert batch.part(0, 4) is batch


def test_part_of_frames_without_keys_has_none(feed: Feed) -> None:
    assert batch_of(feed, [b"a", b"b"]).part(1, 2).keys is None


def test_one_frame_is_not_joined(feed: Feed) -> None:
    frame = bytes(1_000)
    batch = batch_of(feed, [frame], ["k"])
    assert batch.data is frame
    assert (batch.ends, batch.key) == ((1_000,), "k")
    assert batch.alone(0) is batch
    assert single(feed, frame).key is None


def test_frame_of_its_own_is_made_once_and_does_not_hold_the_others(batch: Batch) -> None:
    alone = batch.alone(2)
    assert (alone.data, alone.ends, alone.key) == (b"ccc", (3,), "l")
    assert batch.alone(2) is alone
    assert batch.alone(1).key is None
    assert batch not in gc.get_referents(alone)


def test_budget_is_charged_once_however_many_hold_it(batch: Batch) -> None:
    budget = Budget(1_000_000)
    batch.hold(budget, 1.0)
    charged = budget.used
    assert charged > len(batch.data)
    batch.hold(budget, 1.0)
    batch.release(budget)
    assert budget.used == charged
    batch.release(budget)
    assert (budget.used, batch.holders) == (0, 0)


def test_each_frame_and_each_key_is_charged(feed: Feed) -> None:
    def charged(batch: Batch) -> int:
        budget = Budget(1_000_000)
        batch.hold(budget, 0.0)
        return budget.used

    one, two = charged(single(feed, b"ab")), charged(batch_of(feed, [b"a", b"b"]))
    assert one < two < charged(batch_of(feed, [b"a", b"b"], ["k", "l"]))


def test_batch_waits_since_it_was_first_taken(batch: Batch) -> None:
    """Also when it was let go in between: what was held for a joiner waits on in its connection's outbox."""
    budget = Budget(1_000_000)
    for now in (3.0, 5.0):
        batch.hold(budget, now)
        batch.release(budget)
    assert batch.since == 3.0


def test_messages_that_cannot_be_sent_are_counted(batch: Batch) -> None:
    batch.give_up()
    assert batch.feed.tally == Tally(unsent=4)


def test_collector_of_garbage_does_not_see_batches(batch: Batch) -> None:
    assert not gc.is_tracked(batch)
    assert not gc.is_tracked(batch.alone(1))
