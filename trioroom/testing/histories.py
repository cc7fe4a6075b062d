"""What the tests of `HistoryConformance` do with a store, in words of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Backplane, Delivery, HistoryStore
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


async def publish_numbers(store: HistoryStore, count: int) -> list[Position]:
    """Publish ``count`` numbers in turn."""
    positions = [await store.publish(ROOM, b"%d" % number, HISTORY) for number in range(count)]
    return [position for position in positions if position is not None]


async def publish_with_ids(store: HistoryStore, room: str, numbers: range) -> None:
    """Publish each number in turn, with itself as its id."""
    for number in numbers:
        await store.publish(room, b"%d" % number, HISTORY, str(number))


async def read_forward(store: HistoryStore, room: str = ROOM) -> list[bytes]:
    """All that is kept, page by page from the oldest."""
    payloads: list[bytes] = []
    offset = 0
    while (page := await store.read_after(room, HISTORY, offset, 7)).kept:
        assert [kept.offset for kept in page.kept] == list(range(offset + 1, offset + 1 + len(page.kept)))
        payloads += [kept.payload for kept in page.kept]
        offset = page.kept[-1].offset
    return payloads


async def read_backward(store: HistoryStore, room: str = ROOM) -> list[bytes]:
    """All that is kept, page by page from the latest."""
    payloads: list[bytes] = []
    offset = (await store.read_after(room, HISTORY, None, 1)).position.offset + 1
    while (page := await store.read_before(room, HISTORY, offset, 7)).kept:
        assert [kept.offset for kept in page.kept] == list(range(offset - len(page.kept), offset))
        payloads = [kept.payload for kept in page.kept] + payloads
        offset = page.kept[0].offset
    return payloads
