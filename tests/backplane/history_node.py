"""One node's view of one room's history, in few words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from trioroom._core.history import History, Kept, Page, Position
from trioroom._net.healing import HealingChannel
from trioroom.backplane.base import HistoryStore
from trioroom.backplane.room_channel import RoomChannel

ROOM = "hall/a"
KEPT = History(5)


class Keeping(Protocol):
    """A backplane that keeps history."""

    @property
    def history(self) -> HistoryStore: ...


Kind = TypeVar("Kind", bound=Keeping, covariant=True)


@attrs.frozen
class HistoryNode(Generic[Kind]):
    """See `hold`."""

    backplane: Kind
    room: str = ROOM
    history: History = KEPT

    async def publish(self, *payloads: bytes) -> Position:
        """In turn; the position of the last one."""
        for payload in payloads:
            position = await self.backplane.history.publish(self.room, payload, self.history)
        assert position is not None
        return position

    async def read(self, after: int | None = 0, limit: int = 100, seen: Position | None = None) -> Page:
        return await self.backplane.history.read_after(self.room, self.history, after, limit, seen=seen)

    async def read_before(self, offset: int, limit: int = 100) -> Page:
        return await self.backplane.history.read_before(self.room, self.history, offset, limit)


@asynccontextmanager
async def hold(
    opening: AbstractAsyncContextManager[Kind], history: History = KEPT, deadline: float = 30.0
) -> AsyncIterator[HistoryNode[Kind]]:
    """A node, for so many seconds at most."""
    with trio.fail_after(deadline):
        async with opening as backplane:
            yield HistoryNode(backplane, history=history)


def payloads(page: Page) -> list[bytes]:
    """Of one epoch, in turn, and each with what it follows."""
    assert {kept.epoch for kept in page.kept} <= {page.position.epoch}
    for before, kept in zip(page.kept, page.kept[1:], strict=False):
        assert kept.place_before == before.offset
    assert all(page.start < kept.offset <= page.position.offset for kept in page.kept)
    return [kept.payload for kept in page.kept]


async def follow(
    node: HistoryNode[Keeping],
    channel: RoomChannel,
    heard: list[bytes | None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Add what a room would hear to ``heard``, None for a loss, until cancelled."""
    source = HealingChannel(node.backplane.history, node.room, node.history, channel)
    await source.begin()
    task_status.started()
    while True:
        healed = await source.receive()
        if isinstance(healed, Kept):
            heard.append(healed.payload)
        elif healed.lost is not None:
            heard.append(None)
