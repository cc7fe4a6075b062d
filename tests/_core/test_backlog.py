from __future__ import annotations

import gc
import math

import pytest

from trioroom._core.backlog import BACKLOG_BYTES, Backlog, Load, Verdict
from trioroom._core.batch import batch_of
from trioroom._core.budget import Budget
from trioroom._core.overflow import Feed, Overflow, Tally

either_bound = pytest.mark.parametrize(("messages", "size"), [(3, None), (None, 6)])
DROPPING = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST]


class Queue(Backlog):
    """A backlog that takes words and tells what is in it."""

    def __init__(
        self,
        policy: Overflow,
        load: Load | None = None,
        *,
        max_messages: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.budget = Budget(math.inf)
        self.load = load or load_of()
        super().__init__(Feed(policy, Tally(), lambda lost: b"", max_messages, max_bytes), self.load, self.budget)

    def put(self, words: str, now: float = 0.0) -> Verdict:
        """Words in one batch; what stands before a ``=`` is a key."""
        frames = [word.rpartition("=")[2].encode() for word in words.split()]
        keys = [word.rpartition("=")[0] or None for word in words.split()]
        self.feed.tally.offered += len(frames)
        return self.offer(batch_of(self.feed, frames, keys if self.feed.policy is Overflow.LATEST else None), 0, now)

    def contents(self) -> list[int | str]:
        """What waits, entry by entry, with the losses where they are told."""
        found: list[int | str] = []
        for entry in self.entries:
            found += [entry.lost, entry.data.decode()] if entry.lost else [entry.data.decode()]
        return [*found, self.lost] if self.lost else found

    def load_agrees(self) -> bool:
        size = sum(entry.size for entry in self.entries)
        messages = sum(entry.messages for entry in self.entries)
        counted = (self.messages, self.queued_bytes, self.feed.tally.queued)
        return counted == (messages, size, messages) and (self.load.messages, self.load.queued_bytes) == (
            messages,
            size,
        )


def load_of(max_messages: int = 100, max_bytes: int = 1_000) -> Load:
    return Load(max_messages, max_bytes, max_messages, max_bytes)


# -- what each policy gives up -------------------------------------------------------------------


@pytest.mark.parametrize("policy", Overflow)
def test_what_fits_waits_whole_and_in_order(policy: Overflow) -> None:
    queue = Queue(policy, max_messages=3, max_bytes=6)
    assert queue.put("ab cd") is Verdict.QUEUED
    assert queue.put("ef") is Verdict.QUEUED
    assert "".join(map(str, queue.contents())) == "abcdef"
    assert queue.load_agrees()
    assert queue.feed.tally == Tally(offered=3, queued=3)


@either_bound
def test_batch_that_may_not_be_dropped_is_refused_whole_and_what_waits_stays(
    messages: int | None, size: int | None
) -> None:
    queue = Queue(Overflow.DISCONNECT, max_messages=messages, max_bytes=size)
    queue.put("ab cd")
    assert queue.put("ef gh") is Verdict.OVERFLOW
    assert queue.contents() == ["abcd"]
    assert queue.feed.tally == Tally(offered=4, queued=2, dropped=2)
    assert queue.put("ij") is Verdict.QUEUED


@either_bound
def test_oldest_go_and_the_loss_is_told_before_what_is_left(messages: int | None, size: int | None) -> None:
    queue = Queue(Overflow.DROP_OLDEST, max_messages=messages, max_bytes=size)
    queue.put("ab cd")
    assert queue.put("ef gh") is Verdict.DROPPED
    assert queue.contents() == [1, "cd", "efgh"]
    queue.put("ij")
    assert queue.contents() == [2, "efgh", "ij"]
    queue.put("kl mn op qr")
    assert queue.contents() == [6, "mnopqr"]
    assert queue.load_agrees()
    assert queue.feed.tally == Tally(offered=9, queued=3, dropped=6)


@either_bound
def test_newest_go_and_the_loss_is_told_where_they_would_have_been(messages: int | None, size: int | None) -> None:
    queue = Queue(Overflow.DROP_NEWEST, max_messages=messages, max_bytes=size)
    queue.put("ab cd")
    assert queue.put("ef gh") is Verdict.DROPPED
    assert queue.put("ij") is Verdict.DROPPED
    assert queue.contents() == ["abcd", "ef", 2]
    queue.take(4)
    queue.put("kl")
    assert queue.contents() == ["ef", 2, "kl"]
    assert queue.feed.tally == Tally(offered=6, queued=4, dropped=2)


def test_latest_takes_the_place_of_the_one_before_it() -> None:
    queue = Queue(Overflow.LATEST)
    assert queue.put("x=1 y=2 3") is Verdict.QUEUED
    assert queue.put("y=4 z=5 y=6 7") is Verdict.DROPPED
    assert queue.contents() == [2, "1", "6", "3", "5", "7"]
    assert queue.load_agrees()
    assert queue.feed.tally == Tally(offered=7, queued=5, dropped=2)


def test_messages_without_a_key_replace_nothing_and_go_oldest_first() -> None:
    queue = Queue(Overflow.LATEST, max_messages=3)
    queue.put("1 x=2 3")
    assert queue.put("4") is Verdict.DROPPED
    assert queue.contents() == [1, "2", "3", "4"]
    queue.put("5")
    assert queue.contents() == [2, "3", "4", "5"]
    queue.put("x=6")
    assert queue.contents() == [3, "4", "5", "6"], "the x that was dropped is not replaced"


def test_latest_that_is_larger_than_the_one_before_it_makes_room() -> None:
    queue = Queue(Overflow.LATEST, max_bytes=6)
    queue.put("x=aa y=bb z=cc")
    queue.put("y=bbbb")
    assert queue.contents() == [2, "bbbb", "cc"]
    queue.put("y=bbbbbbb")
    assert queue.contents() == [4, "cc"], "it is the oldest, too large or not"
    assert queue.load_agrees()
    assert queue.feed.tally == Tally(offered=5, queued=1, dropped=4)


def test_key_whose_latest_is_being_sent_waits_anew() -> None:
    queue = Queue(Overflow.LATEST)
    queue.put("x=1 y=2")
    queue.take(1)
    assert queue.put("x=3") is Verdict.QUEUED
    assert queue.contents() == ["2", "3"]


@pytest.mark.parametrize("policy", DROPPING)
def test_message_larger_than_all_that_may_wait_is_lost(policy: Overflow) -> None:
    queue = Queue(policy, max_bytes=3)
    assert queue.put("k=abcd") is Verdict.DROPPED
    assert queue.contents() == [1]
    queue.put("k=ef")
    assert queue.contents() == [1, "ef"]


@pytest.mark.parametrize("policy", DROPPING)
def test_nothing_is_queued_where_others_have_taken_all(policy: Overflow) -> None:
    load = load_of(max_messages=4)
    queue = Queue(policy, load)
    queue.put("a b")
    load.messages += 4  # past the bound, as a first batch may come
    assert queue.put("c") is Verdict.DROPPED
    left = ["ab", 1] if policy is Overflow.DROP_NEWEST else [3]
    assert queue.contents() == left
    assert load.messages == 4 + queue.messages


# -- bounds --------------------------------------------------------------------------------------


def test_feed_without_bounds_has_those_of_the_app() -> None:
    queue = Queue(Overflow.DISCONNECT, load_of(2, 5))
    assert queue.put("abc def") is Verdict.OVERFLOW
    assert queue.put("a b c") is Verdict.OVERFLOW
    assert queue.put("ab cde") is Verdict.QUEUED


def test_room_may_allow_more_than_the_app_but_that_is_not_for_the_others() -> None:
    load = load_of(2, 5)
    large = Queue(Overflow.DISCONNECT, load, max_messages=4, max_bytes=8)
    small = Queue(Overflow.DISCONNECT, load)
    assert small.put("a b c") is Verdict.OVERFLOW
    assert small.put("abcdef") is Verdict.OVERFLOW
    assert large.put("a b c") is Verdict.QUEUED
    assert small.put("d e") is Verdict.OVERFLOW, "together they have what the larger one has"
    assert small.put("d") is Verdict.QUEUED


def test_room_may_allow_less_than_the_app() -> None:
    load = load_of(10, 100)
    queue = Queue(Overflow.DROP_OLDEST, load, max_messages=2, max_bytes=4)
    queue.put("a b c")
    queue.put("ddd")
    assert queue.contents() == [2, "c", "ddd"]
    assert (load.max_messages, load.max_bytes) == (10, 100)


# -- out -----------------------------------------------------------------------------------------


def test_take_is_one_frame_at_least_and_more_up_to_its_bound() -> None:
    queue = Queue(Overflow.DISCONNECT)
    queue.put("abcd e f g")
    taken = [queue.take(size) for size in (1, 2, math.inf)]
    assert [entry.data for entry in taken] == [b"abcd", b"ef", b"g"]
    assert queue.feed.tally.queued == 4, "in the writer's hand, not sent"
    assert (queue.messages, queue.load.messages, queue.load.queued_bytes) == (0, 0, 0)


def test_loss_is_told_once_where_it_is() -> None:
    queue = Queue(Overflow.DROP_OLDEST, max_messages=1)
    queue.put("a b c")
    assert [queue.take_loss(), queue.take_loss()] == [2, 0]
    queue.take(1)
    queue.put("d")
    queue.drop_first()
    assert [queue.take_loss(), queue.take_loss()] == [1, 0], "also when nothing follows it"


def test_frames_that_are_out_are_passed_over() -> None:
    queue = Queue(Overflow.DISCONNECT)
    queue.put("ab cd ef gh")
    queue.take(1)
    taken = queue.take(math.inf)
    assert taken.pass_over(3) == 2
    assert (taken.data, queue.feed.tally.queued) == (b"efgh", 2 + 1)
    assert taken.pass_over(1) == 0
    assert taken.data == b"efgh"


@pytest.mark.parametrize("policy", Overflow)
def test_all_that_waits_can_be_given_up(policy: Overflow) -> None:
    queue = Queue(policy, max_messages=3)
    queue.put("x=1 y=2 3")
    queue.put("y=4 5")
    assert queue.empty() == 3
    assert queue.contents() == []
    assert queue.load_agrees()
    assert queue.budget.used == BACKLOG_BYTES
    queue.put("y=6")
    assert queue.contents() == ["6"]


def test_age_is_that_of_the_oldest_even_if_the_first_was_replaced() -> None:
    queue = Queue(Overflow.LATEST)
    assert queue.since == math.inf
    queue.put("x=1", 1.0)
    queue.put("y=2", 2.0)
    queue.put("x=3", 3.0)
    assert queue.since == 2.0
    queue = Queue(Overflow.DISCONNECT)
    assert queue.since == math.inf
    queue.put("1", 1.0)
    queue.put("2", 2.0)
    assert queue.since == 1.0


def test_collector_of_garbage_does_not_see_entries() -> None:
    queue = Queue(Overflow.DISCONNECT)
    queue.put("a")
    assert not gc.is_tracked(queue.entries[0])
