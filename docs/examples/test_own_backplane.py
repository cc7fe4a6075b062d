"""A backplane of one's own, and the suite that it has to pass; ``trio_mode = true``."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import BackplaneConformance


class PrefixedBackplane:
    """Several applications share a broker: there, the rooms of each have a prefix of their own."""

    history: None = None  # it links rooms that keep nothing
    presence: None = None  # and do not show who is in them

    def __init__(self, inner: Backplane, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix

    @property
    def ready(self) -> bool:
        return self._inner.ready

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await self._inner.publish(self._prefix + room, payload, publication_id)

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        return self._inner.subscribe(self._prefix + room, channel)


class TestPrefixedBackplane(BackplaneConformance):
    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        broker = MemoryBackplane()
        yield [PrefixedBackplane(broker, "shop/") for _ in range(count)]
