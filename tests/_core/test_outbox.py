from __future__ import annotations

import math

import pytest

from trioroom._core.backlog import Verdict
from trioroom._core.batch import Batch, batch_of, single
from trioroom._core.budget import Budget
from trioroom._core.outbox import OUTBOX_BYTES, Outbox
from trioroom._core.overflow import CONTROL, Feed, Overflow, SlowConsumer, Tally
from trioroom._core.statistics import Lag

DROPPING = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST]
NOW = 7.5


class Queue(Outbox):
    """An outbox that takes words, each a frame."""

    def __init__(self, max_messages: int = 100, max_bytes: int = 1_000) -> None:
        self.budget = Budget(math.inf)
        super().__init__(max_messages, max_bytes, self.budget)

    def put(self, feed: Feed, words: str) -> Verdict:
        """In one batch; of the feeds whose policy asks for keys the first letter is that."""
        return self.offer(self._batch(feed, words), NOW)

    def start(self, feed: Feed, words: str, sent: int) -> Verdict:
        """As `put`, for the batch that the kernel took ``sent`` bytes of."""
        return self.begin(self._batch(feed, words), sent, NOW)

    def _batch(self, feed: Feed, words: str) -> Batch:
        feed.tally.offered += len(words.split())
        keys = [word[0] for word in words.split()] if feed.policy is Overflow.LATEST else None
        return batch_of(feed, words.encode().split(), keys)

    def step(self) -> str:
        """Let one frame go out."""
        data = self.head(1)
        self.advance(len(data))
        return data.decode()

    def read(self, size: int = 1_000) -> str:
        """Let so many bytes go out at once, until there is no more."""
        read = b""
        while data := self.head(size):
            self.advance(len(data))
            read += data
        assert not self
        return read.decode()


def feed_of(policy: Overflow = Overflow.DISCONNECT, *, plain: bool = False, max_messages: int | None = None) -> Feed:
    return Feed(policy, Tally(), lambda lost: b"" if plain else b"<%d>" % lost, max_messages)


def counts(tally: Tally) -> tuple[int, int, int, int]:
    return tally.sent, tally.queued, tally.dropped, tally.unsent


# -- in order ------------------------------------------------------------------------------------


def test_new_outbox_is_empty() -> None:
    queue = Queue()
    assert not queue
    assert queue.lag(NOW) == Lag(0, 0, 0.0)
    assert queue.head(100) == b""
    assert queue.budget.used == OUTBOX_BYTES


def test_several_feeds_come_out_in_the_order_in_which_they_were_queued() -> None:
    queue, a, b = Queue(), feed_of(), feed_of(Overflow.DROP_OLDEST)
    for feed, words in [(a, "1 2"), (b, "3"), (CONTROL, "4"), (a, "5"), (b, "6 7"), (CONTROL, "8")]:
        queue.put(feed, words)
    assert queue.lag(NOW + 2) == Lag(8, 8, 2.0)
    assert queue.queued_bytes == 8
    assert queue.read(1) == "12345678"
    assert counts(a.tally) == counts(b.tally) == (3, 0, 0, 0)


def test_batch_that_another_outbox_has_had_longer_keeps_the_place_that_it_got_here() -> None:
    """Else what was held for a joiner would overtake the answer to its join."""
    shared = single(feed_of(), b"message")
    Queue().offer(shared, NOW)
    queue = Queue()
    queue.force(b"answer,", NOW)
    queue.offer(shared, NOW)
    assert queue.read() == "answer,message"


def test_head_joins_whole_frames_of_about_so_many_bytes() -> None:
    queue, a, b = Queue(), feed_of(), feed_of()
    queue.put(a, "abc def")
    queue.put(b, "ghi")
    assert queue.head(4) == b"abcdef"
    assert queue.head(100) == b"abcdef", "it is in the writer's hand"
    queue.advance(6)
    assert queue.head(4) == b"ghi"


def test_single_frame_is_not_copied() -> None:
    queue, frame = Queue(), bytes(500)
    queue.offer(single(feed_of(), frame), NOW)
    assert queue.head(100) is frame


def test_kernel_takes_as_much_as_it_likes() -> None:
    queue, feed = Queue(), feed_of()
    queue.put(feed, "abc de fgh")
    for rest, sent in [("abcdefgh", 0), ("abcdefgh", 2), ("cdefgh", 2), ("efgh", 1), ("fgh", 2)]:
        assert queue.head(100).decode() == rest
        queue.advance(sent)
    assert counts(feed.tally) == (2, 1, 0, 0)
    queue.discard()
    assert counts(feed.tally) == (2, 0, 0, 1), "the torn frame does not count as sent"


# -- a batch that the kernel took some of --------------------------------------------------------


@pytest.mark.parametrize("policy", Overflow)
@pytest.mark.parametrize("sent", range(9))
def test_rest_of_a_batch_is_sent_to_the_byte(policy: Overflow, sent: int) -> None:
    queue, feed = Queue(), feed_of(policy)
    assert queue.start(feed, "abc def ghi", sent) is Verdict.QUEUED
    assert feed.tally.sent == sent // 3
    assert queue.read() == "abcdefghi"[sent:]
    assert counts(feed.tally) == (3, 0, 0, 0)


@pytest.mark.parametrize("policy", Overflow)
def test_torn_frame_is_finished_whatever_becomes_of_the_others(policy: Overflow) -> None:
    queue, feed = Queue(max_messages=1), feed_of(policy, plain=True)
    queue.start(feed, "abc def ghi", 1)
    queue.put(feed, "djk")
    assert queue.head(100) == b"bc"
    queue.clear(SlowConsumer.OVERFLOW)
    queue.clear(SlowConsumer.OVERFLOW)
    queue.force(b"!", NOW)
    assert queue.read() == "bc!"
    assert counts(feed.tally) == (1, 0, 3, 0)


def test_first_batch_comes_in_whole_where_nothing_may_be_dropped() -> None:
    queue, feed = Queue(max_messages=2, max_bytes=4), feed_of()
    assert queue.start(feed, "ab cd ef gh", 1) is Verdict.QUEUED
    assert queue.put(feed, "i") is Verdict.OVERFLOW
    assert queue.read() == "bcdefgh"
    assert queue.put(feed, "i") is Verdict.QUEUED


@pytest.mark.parametrize(
    ("policy", "read"),
    [(Overflow.DROP_OLDEST, "a<2>dd"), (Overflow.DROP_NEWEST, "abb<2>"), (Overflow.LATEST, "a<2>dd")],
)
def test_first_batch_is_bounded_where_messages_may_be_dropped(policy: Overflow, read: str) -> None:
    queue, feed = Queue(max_messages=1), feed_of(policy)
    assert queue.start(feed, "aa bb cc dd", 1) is Verdict.DROPPED
    assert queue.read() == read
    assert counts(feed.tally) == (2, 0, 2, 0)


# -- gaps ----------------------------------------------------------------------------------------

STORIES = [
    (Overflow.DROP_OLDEST, "<3>d1e1f1"),
    (Overflow.DROP_NEWEST, "a1b1c1<3>"),
    (Overflow.LATEST, "<3>d1e1f1"),
]


@pytest.mark.parametrize(("policy", "read"), STORIES)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_gap_stands_where_messages_are_missing(policy: Overflow, read: str, size: int) -> None:
    queue, feed = Queue(), feed_of(policy, max_messages=3)
    verdicts = [queue.put(feed, words) for words in ("a1 b1", "c1 d1", "e1 f1")]
    assert verdicts == [Verdict.QUEUED, Verdict.DROPPED, Verdict.DROPPED]
    assert queue.read(size) == read
    assert counts(feed.tally) == (3, 0, 3, 0)


@pytest.mark.parametrize(("policy", "read"), STORIES)
def test_peers_that_have_no_word_for_a_gap_get_the_messages_alone(policy: Overflow, read: str) -> None:
    queue, feed = Queue(), feed_of(policy, max_messages=3, plain=True)
    for words in ("a1 b1", "c1 d1", "e1 f1"):
        queue.put(feed, words)
    assert queue.read(1) == read.replace("<3>", "")
    assert counts(feed.tally) == (3, 0, 3, 0)


def test_each_gap_tells_what_is_missing_at_its_place() -> None:
    queue, feed = Queue(), feed_of(Overflow.DROP_NEWEST, max_messages=2)
    queue.put(feed, "a b c")
    queue.step()
    queue.put(feed, "d e f")
    assert queue.read() == "b<1>d<2>"
    queue.put(feed, "g")
    assert queue.read() == "g", "each loss is told once"


def test_all_that_were_replaced_are_one_gap_before_what_is_left() -> None:
    queue, feed = Queue(), feed_of(Overflow.LATEST)
    queue.put(feed, "a1 b1 c1 b2")
    queue.put(feed, "c2 b3 d1")
    assert queue.read() == "<3>a1b3c2d1"


def test_loss_that_nothing_follows_is_told_in_its_place_among_all() -> None:
    queue, feed = Queue(max_messages=3), feed_of(Overflow.DROP_NEWEST)
    queue.put(CONTROL, "1")
    queue.put(feed, "a b c d")
    assert [queue.step(), queue.step()] == ["1", "a"]
    queue.put(CONTROL, "2")
    assert queue.read(1) == "b<2>2"


def test_loss_with_nothing_before_it_does_not_overtake_an_answer() -> None:
    queue, feed = Queue(max_bytes=3), feed_of(Overflow.DROP_NEWEST)
    queue.put(CONTROL, "ok")
    queue.put(feed, "much")
    queue.put(CONTROL, "x")
    assert queue.read(1) == "ok<1>x"


@pytest.mark.parametrize(
    ("policy", "read"),
    [
        (Overflow.DISCONNECT, "a1b1oka2"),
        (Overflow.DROP_OLDEST, "<1>b1c1oka2"),
        (Overflow.DROP_NEWEST, "a1b1<1>oka2"),
        (Overflow.LATEST, "<1>b1c1oka2"),
    ],
)
def test_nothing_of_a_membership_moves_into_the_next(policy: Overflow, read: str) -> None:
    queue, feed = Queue(), feed_of(policy, max_messages=2)
    queue.put(feed, "a1 b1" if policy is Overflow.DISCONNECT else "a1 b1 c1")
    queue.seal(feed)
    queue.put(CONTROL, "ok")
    queue.put(feed, "a2")
    assert queue.read(1) == read
    queue.discard()
    assert queue.budget.used == 0


def test_loss_told_for_what_makes_room_does_not_go_before_an_earlier_answer() -> None:
    queue, feed = Queue(max_messages=2), feed_of(Overflow.DROP_NEWEST)
    queue.put(feed, "a")
    queue.put(CONTROL, "1")
    queue.put(feed, "b")
    queue.put(CONTROL, "2")  # at the cost of a
    assert queue.read(1) == "1<2>2"


@pytest.mark.parametrize("plain", [False, True])
def test_outbox_that_has_nothing_but_a_loss_comes_to_its_end(plain: bool) -> None:
    queue, feed = Queue(max_bytes=1), feed_of(Overflow.DROP_NEWEST, plain=plain)
    queue.put(feed, "aa bb")
    assert queue
    assert queue.read(1) == ("" if plain else "<2>")


# -- several feeds -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", DROPPING)
def test_what_may_be_dropped_makes_room_for_what_may_not(policy: Overflow) -> None:
    queue, ticks, chat = Queue(max_messages=3), feed_of(policy), feed_of()
    queue.put(chat, "1")
    queue.put(ticks, "a b")
    assert queue.put(CONTROL, "!") is Verdict.QUEUED
    assert queue.put(chat, "2") is Verdict.QUEUED
    assert queue.put(chat, "3") is Verdict.OVERFLOW
    assert queue.put(ticks, "c") is Verdict.DROPPED
    assert queue.read() == "1!2<3>"
    assert counts(ticks.tally) == (0, 0, 3, 0)


def test_of_several_rooms_that_drop_the_oldest_message_makes_room() -> None:
    queue, a, b = Queue(max_messages=4), feed_of(Overflow.DROP_OLDEST), feed_of(Overflow.LATEST)
    for feed, words in [(a, "1"), (b, "x"), (a, "2"), (b, "y"), (CONTROL, "! !")]:
        queue.put(feed, words)
    assert queue.read() == "<1>2<1>y!!"


def test_room_that_drops_touches_nothing_of_others() -> None:
    queue, ticks, chat = Queue(max_messages=3), feed_of(Overflow.DROP_OLDEST), feed_of()
    queue.put(chat, "1")
    queue.put(CONTROL, "!")
    queue.put(ticks, "a b c d")
    assert queue.read() == "1!<3>d"
    assert counts(ticks.tally) == (1, 0, 3, 0)


def test_room_has_bounds_of_its_own_beside_those_of_the_outbox() -> None:
    queue, narrow, wide = Queue(max_messages=4), feed_of(max_messages=2), feed_of(max_messages=5)
    assert queue.put(narrow, "a b c") is Verdict.OVERFLOW
    assert queue.put(narrow, "a b") is Verdict.QUEUED
    assert queue.put(wide, "1 2 3 4") is Verdict.OVERFLOW
    assert queue.put(wide, "1 2 3") is Verdict.QUEUED
    assert queue.read() == "ab123"


@pytest.mark.parametrize("policy", Overflow)
def test_what_is_in_the_writers_hand_is_beyond_bounds_and_policies(policy: Overflow) -> None:
    queue, feed = Queue(max_messages=2), feed_of(policy)
    queue.put(feed, "a b")
    assert queue.head(100) == b"ab"
    assert queue.lag(NOW + 1) == Lag(0, 0, 1.0)
    assert queue.put(feed, "a c") is Verdict.QUEUED
    assert queue.lag(NOW) == Lag(2, 2, 0.0)
    assert queue.read() == "abac"


def test_forced_frame_passes_the_bounds_and_comes_last() -> None:
    queue, feed = Queue(max_messages=1, max_bytes=2), feed_of()
    queue.put(feed, "ab")
    queue.force(b"close", NOW)
    assert queue.lag(NOW) == Lag(2, 7, 0.0)
    assert queue.read() == "abclose"


# -- away ----------------------------------------------------------------------------------------


def test_cleared_outbox_may_keep_its_control_frames_for_one_may_be_a_close() -> None:
    queue, feed = Queue(), feed_of()
    queue.put(feed, "a b")
    queue.force(b"close", NOW)
    queue.clear(SlowConsumer.OVERFLOW, keep_control=True)
    assert feed.tally.dropped == 2
    assert queue.read() == "close"


def test_slow_consumer_counts_for_each_room_that_had_something_here() -> None:
    queue, a, b, c = Queue(), feed_of(), feed_of(Overflow.DROP_OLDEST, max_messages=1), feed_of()
    queue.put(c, "0")
    queue.head(1)
    queue.put(a, "1 2")
    queue.put(b, "x y")
    queue.count_slow_consumer()
    queue.clear(SlowConsumer.OVERFLOW)
    assert [feed.tally.slow_consumers for feed in (a, b, c)] == [1, 1, 1]
    assert [feed.tally.dropped for feed in (a, b, c)] == [2, 2, 0]
    assert queue.lag(NOW) == Lag(0, 0, 0.0)
    assert queue.read() == "0", "nobody is told of a gap where the connection ends"


def test_all_that_is_left_when_a_connection_is_lost_is_unsent() -> None:
    queue, a, b = Queue(), feed_of(), feed_of(Overflow.DROP_NEWEST, max_messages=1)
    control = CONTROL.tally.queued
    queue.put(b, "x y")
    queue.put(a, "1 2")
    queue.head(1)
    queue.put(CONTROL, "!")
    queue.discard()
    assert counts(a.tally) == (0, 0, 0, 2)
    assert counts(b.tally) == (0, 0, 1, 1)
    assert (queue.budget.used, CONTROL.tally.queued) == (0, control)


def test_all_that_was_held_is_handed_on_with_its_gaps_in_order() -> None:
    queue, feed = Queue(), feed_of(Overflow.DROP_OLDEST, max_messages=4)
    queue.put(feed, "a b c")
    queue.put(CONTROL, "!")
    queue.put(feed, "d e")
    batches = queue.take_all()
    assert [(batch.feed, batch.data) for batch in batches] == [
        (CONTROL, b"<1>"), (feed, b"bc"), (CONTROL, b"!"), (feed, b"de"),
    ]  # fmt: skip
    assert counts(feed.tally) == (4, 0, 1, 0), "now it is up to who has them"
    assert queue.budget.used == 0


# -- lag -----------------------------------------------------------------------------------------


def test_lag_is_as_old_as_the_oldest_that_is_not_sent() -> None:
    queue, a, b = Queue(), feed_of(Overflow.DROP_OLDEST, max_messages=1), feed_of()
    for now, feed in [(1.0, a), (2.0, a), (3.0, b)]:
        queue.offer(single(feed, b"x"), now)
    assert queue.lag(10.0) == Lag(2, 2, 8.0)
    assert queue.head(1) == b"<1>", "a gap has not waited"
    assert queue.lag(10.0) == Lag(2, 2, 8.0)
    assert [queue.step(), queue.head(1)] == ["<1>", b"x"]
    assert queue.lag(10.0) == Lag(1, 1, 8.0)
    assert [queue.step(), queue.lag(10.0)] == ["x", Lag(1, 1, 7.0)]


def test_lag_is_no_age_when_only_a_gap_is_in_the_hand() -> None:
    queue, feed = Queue(max_bytes=1), feed_of(Overflow.DROP_OLDEST)
    queue.put(feed, "aa")
    queue.head(1)
    assert queue.lag(10.0) == Lag(0, 0, 0.0)
