from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trioroom._core.outbox import Outbox, Verdict


def make_outbox(max_bytes: int = 10, max_messages: int = 5) -> Outbox:
    return Outbox(max_bytes, max_messages, 7.5)


def load(outbox: Outbox) -> tuple[int, int]:
    return outbox.messages, outbox.queued_bytes


def test_new_outbox_is_empty_and_knows_when_it_was_made() -> None:
    outbox = make_outbox()
    assert not outbox
    assert load(outbox) == (0, 0)
    assert outbox.since == 7.5
    assert outbox.take(100) == b""


def test_bytes_come_out_in_the_order_they_went_in() -> None:
    outbox = make_outbox()
    for data in (b"ab", b"c", b"de"):
        assert outbox.offer(data) is Verdict.QUEUED
    assert outbox
    assert load(outbox) == (3, 5)
    assert outbox.take(100) == b"abcde"
    assert not outbox
    assert load(outbox) == (0, 0)


def test_offer_that_fits_exactly_is_queued_and_one_byte_more_is_not() -> None:
    outbox = make_outbox(max_bytes=4)
    assert outbox.offer(b"abcd") is Verdict.QUEUED
    assert outbox.offer(b"e") is Verdict.OVERFLOW
    assert load(outbox) == (1, 4)
    assert outbox.take(100) == b"abcd"


def test_messages_are_bounded_too_however_small() -> None:
    outbox = make_outbox(max_messages=3)
    assert outbox.offer(b"", 2) is Verdict.QUEUED
    assert outbox.offer(b"", 2) is Verdict.OVERFLOW
    assert outbox.offer(b"") is Verdict.QUEUED
    assert outbox.offer(b"") is Verdict.OVERFLOW
    assert load(outbox) == (3, 0)


def test_data_that_is_no_message_fits_when_no_more_messages_do() -> None:
    outbox = make_outbox(max_messages=1)
    outbox.offer(b"a")
    assert outbox.offer(b"pong", 0) is Verdict.QUEUED
    assert load(outbox) == (1, 5)


def test_smaller_offer_fits_after_a_larger_one_did_not() -> None:
    outbox = make_outbox(max_bytes=3)
    outbox.offer(b"ab")
    assert outbox.offer(b"cd") is Verdict.OVERFLOW
    assert outbox.offer(b"e") is Verdict.QUEUED
    assert outbox.take(100) == b"abe"


def test_what_is_taken_makes_room() -> None:
    outbox = make_outbox(max_bytes=4, max_messages=2)
    outbox.offer(b"ab")
    outbox.offer(b"cd")
    assert outbox.take(2) == b"ab"
    assert load(outbox) == (1, 2)
    assert outbox.offer(b"ef") is Verdict.QUEUED
    assert outbox.take(100) == b"cdef"


def test_take_joins_whole_chunks_up_to_its_bound() -> None:
    outbox = make_outbox()
    for data in (b"ab", b"cd", b"ef"):
        outbox.offer(data)
    assert outbox.take(5) == b"abcd"
    assert outbox.take(5) == b"ef"


def test_chunk_larger_than_the_bound_is_taken_whole_and_alone() -> None:
    outbox = make_outbox()
    outbox.offer(b"abcd")
    outbox.offer(b"e")
    assert outbox.take(1) == b"abcd"
    assert outbox.take(1) == b"e"


def test_single_chunk_is_not_copied() -> None:
    outbox = make_outbox()
    data = bytes(range(8))
    outbox.offer(data)
    assert outbox.take(100) is data


def test_rest_of_a_send_is_kept_whatever_its_size_and_counts_against_the_bounds() -> None:
    outbox = make_outbox(max_bytes=4, max_messages=2)
    outbox.begin(b"abcdefgh", 3, 5)
    assert load(outbox) == (5, 5)
    assert outbox.offer(b"", 0) is Verdict.OVERFLOW
    assert outbox.take(1) == b"defgh"
    assert load(outbox) == (0, 0)
    assert outbox.offer(b"i") is Verdict.QUEUED


def test_forced_data_passes_the_bounds_and_comes_last() -> None:
    outbox = make_outbox(max_bytes=2, max_messages=1)
    outbox.offer(b"ab")
    outbox.force(b"close")
    assert load(outbox) == (1, 7)
    assert outbox.take(100) == b"abclose"


def test_clear_forgets_everything_when_no_frame_is_torn() -> None:
    outbox = make_outbox()
    outbox.begin(b"ab", 0)
    outbox.offer(b"cd")
    assert load(outbox) == (2, 4)
    outbox.clear()
    assert not outbox
    assert load(outbox) == (0, 0)
    outbox.force(b"close")
    assert outbox.take(100) == b"close"


def test_clear_keeps_the_rest_of_a_torn_frame() -> None:
    """Else the peer would read our close frame as the payload of the frame it has half of."""
    outbox = make_outbox()
    outbox.begin(b"abcd", 1, 2)
    outbox.offer(b"ef")
    outbox.clear()
    outbox.clear()
    assert load(outbox) == (2, 3)
    outbox.force(b"close")
    assert outbox.take(100) == b"bcdclose"


def test_clear_forgets_everything_once_the_torn_frame_is_taken() -> None:
    outbox = make_outbox()
    outbox.begin(b"abcd", 1)
    outbox.offer(b"ef")
    outbox.take(1)
    outbox.clear()
    assert not outbox
    assert load(outbox) == (0, 0)


class OutboxMachine(RuleBasedStateMachine):
    """Against a list of chunks, with the bounds checked by adding them up."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[tuple[bytes, int]] = []
        self.torn = False

    @initialize(max_bytes=st.integers(1, 20), max_messages=st.integers(1, 6))
    def open(self, max_bytes: int, max_messages: int) -> None:
        self.max_bytes, self.max_messages = max_bytes, max_messages
        self.outbox = Outbox(max_bytes, max_messages, 0.0)
        self.fresh = True

    def queued(self) -> tuple[int, int]:
        return sum(messages for _, messages in self.chunks), sum(len(data) for data, _ in self.chunks)

    @precondition(lambda self: self.fresh)
    @rule(data=st.binary(min_size=1, max_size=30), sent=st.integers(0, 29), messages=st.integers(0, 8))
    def begin(self, data: bytes, sent: int, messages: int) -> None:
        sent = min(sent, len(data) - 1)
        self.outbox.begin(data, sent, messages)
        self.chunks.append((data[sent:], messages))
        self.torn = sent > 0
        self.fresh = False

    @rule(data=st.binary(max_size=8), messages=st.integers(0, 3))
    def offer(self, data: bytes, messages: int) -> None:
        queued_messages, queued_bytes = self.queued()
        fits = queued_messages + messages <= self.max_messages and queued_bytes + len(data) <= self.max_bytes
        assert self.outbox.offer(data, messages) is (Verdict.QUEUED if fits else Verdict.OVERFLOW)
        if fits:
            self.chunks.append((data, messages))
            self.fresh = False

    @rule(data=st.binary(max_size=8))
    def force(self, data: bytes) -> None:
        self.outbox.force(data)
        self.chunks.append((data, 0))
        self.fresh = False

    @rule()
    def clear(self) -> None:
        self.outbox.clear()
        del self.chunks[1 if self.torn else 0 :]

    @rule(max_bytes=st.integers(0, 30))
    def take(self, max_bytes: int) -> None:
        expected = b""
        for at, (data, _) in enumerate(self.chunks):
            if at and len(expected) + len(data) > max_bytes:
                del self.chunks[:at]
                break
            expected += data
        else:
            self.chunks.clear()
        assert self.outbox.take(max_bytes) == expected
        self.torn = False

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert load(self.outbox) == self.queued()
        assert bool(self.outbox) is bool(self.chunks)

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            assert self.outbox.take(1 << 20) == b"".join(data for data, _ in self.chunks)


TestOutboxAgainstModel = OutboxMachine.TestCase
