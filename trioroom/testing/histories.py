"""What the tests of `HistoryConformance` do with a store, in words of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Backplane, Delivery, HistoryStore, Lost
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing.conformance import CAPACITY, ROOM, make_channel

HISTORY = History(1_000)


def history_of(node: Backplane) -> HistoryStore:
    """What it keeps; it has to."""
    assert node.history is not None
    return node.history


@asynccontextmanager
async def listening(
    store: HistoryStore, room: str = ROOM, *, max_publications: int = CAPACITY
) -> AsyncIterator[RoomChannel]:
    """What is published to ``room`` and kept, in a channel that is closed when the context is left."""
    with make_channel(max_publications) as channel:
        async with store.subscribe(room, channel):
            yield channel


def kept_of(delivery: Delivery) -> Kept:
    """What was published; nothing else has business here."""
    assert isinstance(delivery, Kept), delivery
    return delivery


def contents(page: Page) -> list[tuple[int, bytes]]:
    """Offsets and payloads."""
    return [(kept.offset, kept.payload) for kept in page.kept]


def offsets_of(page: Page) -> list[int]:
    """Of all on it."""
    return [kept.offset for kept in page.kept]


def position_of(kept: Kept) -> Position:
    """Right behind it."""
    return Position(kept.epoch, kept.offset)


async def publish(store: HistoryStore, payload: bytes, history: History | None = HISTORY) -> Position:
    """Publish ``payload``, which has to go out."""
    position = await store.publish(ROOM, payload, history)
    assert position is not None
    return position


async def publish_numbers(store: HistoryStore, count: int) -> list[Position]:
    """Publish ``count`` numbers in turn."""
    return [await publish(store, b"%d" % number) for number in range(count)]


async def publish_with_ids(store: HistoryStore, room: str, numbers: range) -> None:
    """Publish each number in turn, with itself as its id."""
    for number in numbers:
        await store.publish(room, b"%d" % number, HISTORY, str(number))


def assert_ends(page: Page, store: HistoryStore, last: Position) -> None:
    """That it knows of the publication at ``last``, which is the latest one."""
    assert page.position.epoch == last.epoch
    assert page.position.offset >= last.offset
    if store.dense_offsets:
        assert page.position == last


async def end_of(store: HistoryStore, room: str = ROOM) -> int:
    """The place where its history ends."""
    return (await store.read_after(room, HISTORY, None, 1)).position.offset


async def follow(store: HistoryStore, channel: RoomChannel, at: int, count: int, room: str = ROOM) -> None:
    """From the place ``at`` on, see ``count``, reading what a `Lost` stands for; fails where a hole is not told."""
    seen = 0
    while seen < count:
        delivery = await channel.receive()
        if isinstance(delivery, Lost):
            page = await store.read_after(room, HISTORY, at, 1_000)
            seen += len(page.kept)
            at = max([at, *offsets_of(page)])
        elif (kept := kept_of(delivery)).offset > at:
            assert kept.place_before <= at, f"something is missing between {at} and {kept.offset}"
            at, seen = kept.offset, seen + 1


async def read_forward(store: HistoryStore, room: str = ROOM) -> list[bytes]:
    """All that is kept, page by page from the oldest."""
    payloads: list[bytes] = []
    offset = 0
    while (page := await store.read_after(room, HISTORY, offset, 7)).kept:
        assert offsets_of(page) == sorted(set(offsets_of(page)))
        assert page.kept[0].offset > offset
        payloads += [kept.payload for kept in page.kept]
        offset = page.kept[-1].offset
    return payloads


async def read_backward(store: HistoryStore, room: str = ROOM) -> list[bytes]:
    """All that is kept, page by page from the latest."""
    payloads: list[bytes] = []
    offset = await end_of(store, room) + 1
    while (page := await store.read_before(room, HISTORY, offset, 7)).kept:
        assert offsets_of(page) == sorted(set(offsets_of(page)))
        assert page.kept[-1].offset < offset
        payloads = [kept.payload for kept in page.kept] + payloads
        offset = page.kept[0].offset
    return payloads
