"""Pages of a room's history, read while the room goes on: against a stream in memory that does what the server does."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.history import Page
from trioroom.backplane.nats.epochs import Before, Epoch
from trioroom.backplane.nats.history_stream import Batch, Stored
from trioroom.backplane.nats.pages import PAGE_BYTES, Extent, PageReader
from trioroom.errors import BackplaneUnavailable

EPOCH = Epoch("now", 1, "", (Before("before", 0),))


@attrs.define
class MemoryStream:
    """One room's messages. Before each reply something may happen to them."""

    max_messages: int = 10**9
    replicated: bool = False
    lags: Iterator[int] = attrs.field(factory=lambda: iter(()))
    """How many messages the server that replies is behind, for each reply."""
    happen: Callable[[MemoryStream], None] = lambda stream: None
    messages: list[Stored] = attrs.field(factory=list)
    reads: int = 0
    _before: list[list[Stored]] = attrs.field(factory=list)

    def append(self, sequence: int, size: int = 1, mark: bool = False) -> None:
        self.messages.append(Stored(sequence, float(sequence), bytes(size), mark))
        del self.messages[: -self.max_messages]
        self._before.append(list(self.messages))

    async def ask_first(self, subject: str) -> Stored | None:
        await trio.lowlevel.checkpoint()
        return self.messages[0] if self.messages else None

    async def read(self, subject: str, sequence: int, count: int, max_bytes: int) -> Batch:
        await trio.lowlevel.checkpoint()
        self.happen(self)
        self.reads += 1
        lag = next(self.lags, 0)
        messages = self._before[-1 - lag] if lag < len(self._before) else []
        first = bisect.bisect_left(messages, sequence, key=lambda stored: stored.sequence)
        batch: list[Stored] = []
        size = 0
        for index in range(first, min(first + count, len(messages))):
            batch.append(with_later(messages[index], len(messages) - index - 1))
            size += len(messages[index].payload)
            if size >= max_bytes:
                break
        return Batch(batch, not batch or batch[-1].later == 0)


def with_later(stored: Stored, later: int) -> Stored:
    return Stored(stored.sequence, stored.since, stored.payload, stored.mark, later)


def reader(
    stream: MemoryStream, size: int = 1_000, *, now: float = 0.0, ttl: float = math.inf, epoch: Epoch = EPOCH
) -> PageReader:
    last = stream.messages[-1].sequence
    return PageReader(stream, "room", Extent(epoch, last, size, now, ttl), 1.0)  # type: ignore[arg-type]  # it reads only


def offsets(page: Page) -> list[int]:
    return [kept.offset for kept in page.kept]


def check(page: Page, expected: list[int]) -> None:
    """It has these, and says of each what it follows."""
    assert offsets(page) == expected
    for before, kept in zip(page.kept, page.kept[1:], strict=False):
        assert kept.place_before == before.offset
    if expected:
        assert page.start <= page.kept[0].place_before
    assert page.position.offset >= max([page.start, *expected])


STEPS = st.lists(st.integers(1, 400), min_size=1, max_size=120)


@given(STEPS, st.integers(1, 140), st.integers(1, 40), st.data())
async def test_pages_both_ways_have_what_counts(steps: list[int], size: int, limit: int, data: st.DataObject) -> None:
    stream = MemoryStream()
    sequences: list[int] = []
    for step in steps:
        sequences.append((sequences[-1] if sequences else 0) + step)
        stream.append(sequences[-1])
    ttl = data.draw(st.integers(0, sequences[-1] + 1))
    counting = [sequence for sequence in sequences[-size:] if sequences[-1] - sequence <= ttl]
    offset = data.draw(st.integers(0, sequences[-1] + 2))
    gone = max([sequence for sequence in sequences if sequence not in counting], default=None)

    page = await reader(stream, size, now=sequences[-1], ttl=ttl).after(offset, limit)
    check(page, [sequence for sequence in counting if sequence > offset][:limit])
    if gone is not None and offset < gone:
        assert page.start == gone
    page = await reader(stream, size, now=sequences[-1], ttl=ttl).before(offset, limit)
    check(page, [sequence for sequence in counting if sequence < offset][-limit:])
    if gone is None:
        assert page.start == sequences[0] - 1


@given(
    STEPS,
    st.integers(1, 30),
    st.integers(1, 20),
    st.lists(st.integers(0, 6), max_size=8),
    st.lists(st.integers(0, 8), max_size=8),
    st.data(),
)
async def test_no_page_has_a_hole_while_the_room_goes_on(
    steps: list[int], max_messages: int, limit: int, bursts: list[int], lags: list[int], data: st.DataObject
) -> None:
    stream = MemoryStream(max_messages, replicated=bool(lags), lags=iter(lags))
    published: list[int] = []

    def publish(count: int) -> None:
        for _ in range(count):
            published.append((published[-1] if published else 0) + steps[len(published) % len(steps)])
            stream.append(published[-1])

    publish(len(steps))
    coming = iter(bursts)
    stream.happen = lambda _: publish(next(coming, 0))
    offset = data.draw(st.integers(0, published[-1] + 2))
    for page in (
        await reader(stream, max_messages).after(offset, limit),
        await reader(stream, max_messages).before(offset, limit),
    ):
        found = offsets(page)
        assert found == [each for each in published if found and found[0] <= each <= found[-1]], "a hole"
        check(page, found)
        for kept in page.kept:
            assert not [each for each in published if kept.place_before < each < kept.offset], "it follows another one"
    page = await reader(stream, max_messages).after(offset, limit)
    if page.kept:
        between = [each for each in published if max(offset, page.start) < each < page.kept[0].offset]
        assert between == [], "what is missing is not told"
    there = published[-1]
    page = await reader(stream, max_messages).before(offset, limit)
    latest = page.kept[-1].offset if page.kept else page.start
    assert [each for each in published if latest < each < offset and each <= there] == [], "the page ends too early"


async def test_search_takes_few_guesses() -> None:
    stream = MemoryStream()
    for number in range(1, 1_001):
        stream.append(number * 1_000 if number < 500 else 600_000 + number)  # even, then in one go
    for offset in (600_900, 601_000, 600_520, 250_000):
        stream.reads = 0
        page = await reader(stream).before(offset, 100)
        assert len(page.kept) == 100
        assert stream.reads <= 20


async def test_page_before_a_place_takes_no_more_bytes_than_it_needs() -> None:
    stream = MemoryStream()
    for number in range(1, 101):
        stream.append(number, PAGE_BYTES // 4)
    page = await reader(stream).before(101, 100)
    check(page, [97, 98, 99, 100])
    page = await reader(stream).after(0, 100)
    check(page, [1, 2, 3, 4])


async def test_what_is_dropped_between_two_replies_is_nothing_that_the_next_one_follows() -> None:
    stream = MemoryStream(max_messages=6)
    for number in range(1, 7):
        stream.append(number, PAGE_BYTES // 2)
    at = iter(range(100))

    def drop(_: MemoryStream) -> None:
        if next(at) == 2:  # the first reply was the room's first message, the second the first of the page
            for number in range(7, 11):
                stream.append(number, PAGE_BYTES // 2)

    stream.happen = drop
    page = await reader(stream).before(7, 6)
    check(page, [5, 6])
    assert page.kept[0].place_before == page.start == 4


async def test_mark_is_where_the_room_begins() -> None:
    stream = MemoryStream()
    stream.append(7, mark=True)
    for page in (
        await reader(stream).after(0, 9),
        await reader(stream).before(9, 9),
        await reader(stream).after(None, 0),
    ):
        check(page, [])
        assert (page.start, page.position.offset) == (7, 7)
    stream.append(9)
    page = await reader(stream).after(7, 9)
    check(page, [9])
    assert page.start <= 7


async def test_what_an_epoch_does_not_go_on_from_does_not_count() -> None:
    stream = MemoryStream()
    for sequence in (1, 2, 3, 9):
        stream.append(sequence)
    anew = Epoch("anew", 5, "", (Before("before", None),))
    for page in (await reader(stream, epoch=anew).after(0, 9), await reader(stream, epoch=anew).before(99, 9)):
        check(page, [9])
        assert page.start == 5
        assert page.previous is None
    stream = MemoryStream()
    stream.append(3)
    page = await reader(stream, epoch=anew).after(0, 9)
    assert (page.kept, page.start, page.position.offset) == ((), 5, 5)


async def test_server_that_is_behind_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    stream = MemoryStream(replicated=True, lags=iter([1] * 5))
    for sequence in (1, 2, 3):
        stream.append(sequence)
    check(await reader(stream).after(2, 9), [3])
    stream.lags = itertools.repeat(1)
    with pytest.raises(BackplaneUnavailable, match="behind"):
        await reader(stream).after(2, 9)


@pytest.mark.parametrize("burst", [1, 5, 30, 300])
async def test_page_before_a_place_ends_there_however_many_come_while_it_is_searched_for(burst: int) -> None:
    for limit in (1, 3, 40):
        stream = MemoryStream()
        for number in range(1, 1_001):
            stream.append(10 * number)

        def publish(stream: MemoryStream) -> None:
            for _ in range(burst):
                stream.append(stream.messages[-1].sequence + 10)

        stream.happen = publish
        page = await reader(stream, 10_000).before(5_005, limit)
        check(page, list(range(5_010 - 10 * len(page.kept), 5_010, 10)))
        assert page.kept
