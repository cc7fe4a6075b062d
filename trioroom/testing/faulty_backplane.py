"""A link between servers that fails when a test says so, or by chance: for any backplane."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from trioroom._core.history import History, Page, Position
from trioroom.backplane.base import Backplane, HistoryStore, PresenceStore
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.beside import beside
from trioroom.testing.faulty_delivery import Course, Fault, FaultyDelivery
from trioroom.testing.severed_presence import SeveredPresence

T = TypeVar("T")
_OF_SERVERS = "\0"  # how the names of rooms begin by which servers talk to each other


@attrs.define
class _Planned:
    """What the test has asked for."""

    course: Course
    room: str | None
    left: int


def _checked(count: int) -> int:
    if count < 1:
        raise ValueError(f"count={count} of what comes next is none; it must be 1 or more")
    return count


class FaultyBackplane:
    """One node's link to the broker: ``inner``, with faults.

    What the contract of backplanes allows, so that servers and clients have to survive it, is `partition`, `restart`,
    `lose_next_answer` and ``delay``. What it forbids is there to see what your application, or the healing of rooms
    with a history, makes of it: ``drop`` in silence, ``duplicate``, ``reorder``.

    Probabilities are of each publication that comes to this node, and may be set at any time. Chance comes from
    ``seed``, apart for each room, and the nth publication of a room always meets the same. What servers tell each
    other goes by rooms of their own, in which nothing but partitions happens.

    Args:
        inner: the link that would work, open; None is memory, with a broker of its own.
        seed: of chance.
        drop: probability that a publication is lost and nobody is told.
        duplicate: that it comes twice.
        reorder: that it comes after the next one.
        delay: seconds that each publication takes, or between how many; they keep their order.
        lease: seconds after which others take this node for dead while it is partitioned, and its members for gone.
    """

    def __init__(
        self,
        inner: Backplane | None = None,
        *,
        seed: int | str = 0,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: float | tuple[float, float] = 0.0,
        lease: float = 30.0,
    ) -> None:
        self.inner: Backplane = MemoryBackplane() if inner is None else inner
        """What it wraps."""
        self.drop = drop
        self.duplicate = duplicate
        self.reorder = reorder
        self.delay = delay
        self.counts: Counter[Fault] = Counter()
        """How many publications have met each fault so far."""
        self._seed = seed
        self._lease = lease
        self._nodes = [self]  # of one broker, who share this list
        self._deliveries: list[FaultyDelivery] = []
        self._subscriptions: Counter[str] = Counter()  # so that each of a room has luck of its own
        self._planned: list[_Planned] = []
        self._answers_to_lose = 0
        self._is_partitioned = False
        store, presence = self.inner.history, self.inner.presence
        self._history = None if store is None else _FaultyHistory(self, store)
        self._presence = None if presence is None else SeveredPresence(presence, lease)

    def another_node(self) -> FaultyBackplane:
        """The link of another server to the same broker, without faults until they are asked for."""
        node = FaultyBackplane(self.inner, seed=f"{self._seed}/{len(self._nodes)}", lease=self._lease)
        node._nodes = self._nodes
        self._nodes.append(node)
        return node

    # -- faults of the link ---------------------------------------------------------------------

    def partition(self) -> None:
        """Part this node from the broker: nothing comes, and who publishes gets `trioroom.BackplaneUnavailable`.

        What is on its way is lost. The server is not ready, rooms that are active stay so, and no others can be opened.
        """
        self._is_partitioned = True
        for delivery in self._deliveries:
            delivery.cut()
        if self._presence is not None:
            self._presence.sever()

    def heal(self) -> None:
        """End the partition: rooms are told that something may be missing, and read it where there is a history."""
        if not self._is_partitioned:
            return
        self._is_partitioned = False
        for delivery in self._deliveries:
            delivery.mend()
        if self._presence is not None:
            self._presence.mend()

    @contextmanager
    def partitioned(self) -> Iterator[None]:
        """`partition` for as long as the context is open."""
        self.partition()
        try:
            yield
        finally:
            self.heal()

    def restart(self) -> None:
        """The broker dies and is back at once, having forgotten all it kept: histories, and who has published what.

        So every node of it is told of a gap, other than those that are partitioned, which are when they are back.

        Raises:
            TypeError: ``inner`` is not memory; restart your broker itself.
        """
        if not isinstance(self.inner, MemoryBackplane):
            raise TypeError(f"a {type(self.inner).__name__} cannot be made to forget; restart its broker")
        linked = [node for node in self._nodes if not node._is_partitioned]
        for node in linked:
            node.partition()
        self.inner.forget_all()
        for node in linked:
            node.heal()

    def lose_next_answer(self, count: int = 1) -> None:
        """The next publications of this node go out, and it gets `trioroom.BackplaneUnavailable` for them.

        So a publisher who tries again does well to give a ``publication_id``.
        """
        self._answers_to_lose += _checked(count)

    # -- faults of single publications ----------------------------------------------------------

    def delay_next(self, seconds: float, count: int = 1, *, room: str | None = None) -> None:
        """The next publications that come to this node, in ``room`` or any, take so long; those behind them wait."""
        self._planned.append(_Planned(Course(seconds), room, _checked(count)))

    def drop_next(self, count: int = 1, *, room: str | None = None) -> None:
        """The next ones are lost, and nobody is told."""
        self._planned.append(_Planned(Course(0.0, Fault.DROPPED), room, _checked(count)))

    def duplicate_next(self, count: int = 1, *, room: str | None = None) -> None:
        """The next ones come twice."""
        self._planned.append(_Planned(Course(0.0, Fault.DUPLICATED), room, _checked(count)))

    def reorder_next(self, *, room: str | None = None) -> None:
        """The next one comes after the one behind it; without one, a second late."""
        self._planned.append(_Planned(Course(0.0, Fault.REORDERED), room, 1))

    def _judge(self, room: str, chance: random.Random) -> Course:
        if room.startswith(_OF_SERVERS):
            return Course()
        course = self._by_chance(chance)  # drawn always, so that what is planned does not change what follows
        for planned in self._planned:
            if planned.room in (None, room):
                planned.left -= 1
                if not planned.left:
                    self._planned.remove(planned)
                course = planned.course
                break
        if course.fault is not None:
            self.counts[course.fault] += 1
        if course.seconds:
            self.counts[Fault.DELAYED] += 1
        return course

    def _by_chance(self, chance: random.Random) -> Course:
        least, most = self.delay if isinstance(self.delay, tuple) else (self.delay, self.delay)
        seconds = chance.uniform(least, most)
        fault: Fault | None = None
        odds = ((self.reorder, Fault.REORDERED), (self.duplicate, Fault.DUPLICATED), (self.drop, Fault.DROPPED))
        for probability, each in odds:
            if chance.random() < probability:
                fault = each  # the worse one counts
        return Course(seconds, fault)

    # -- as the server sees it ------------------------------------------------------------------

    @property
    def history(self) -> HistoryStore | None:
        """What ``inner`` has, with the same faults."""
        return self._history

    @property
    def presence(self) -> PresenceStore | None:
        """What ``inner`` has, with partitions."""
        return self._presence

    @property
    def ready(self) -> bool:
        """Not while it is partitioned."""
        return self.inner.ready and not self._is_partitioned

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """See `Backplane.publish`."""
        await self._publish(room, partial(self.inner.publish, room, payload, publication_id))

    async def _publish(self, room: str, publish: Callable[[], Awaitable[T]]) -> T:
        await self._check()
        answer = await publish()
        if self._answers_to_lose and not room.startswith(_OF_SERVERS):
            self._answers_to_lose -= 1
            raise BackplaneUnavailable("the broker has it, but its answer was lost")
        return answer

    async def _check(self) -> None:
        if self._is_partitioned:
            await trio.lowlevel.checkpoint()
            raise BackplaneUnavailable("partitioned from the broker")

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """See `Backplane.subscribe`."""
        return self._subscribe(room, channel, self.inner.subscribe)

    @asynccontextmanager
    async def _subscribe(
        self,
        room: str,
        channel: RoomChannel,
        subscribe: Callable[[str, RoomChannel], AbstractAsyncContextManager[None]],
    ) -> AsyncIterator[None]:
        await self._check()
        self._subscriptions[room] += 1
        chance = random.Random(f"{self._seed} {self._subscriptions[room]} {room}")
        delivery = FaultyDelivery(channel, partial(self._judge, room, chance))
        with delivery.source:
            async with subscribe(room, delivery.source), beside(delivery.run):
                if self._is_partitioned:  # meanwhile
                    delivery.cut()
                self._deliveries.append(delivery)
                try:
                    yield
                finally:
                    self._deliveries.remove(delivery)


class _FaultyHistory:
    """The histories of ``link``, with its faults."""

    def __init__(self, link: FaultyBackplane, inner: HistoryStore) -> None:
        self._link = link
        self._inner = inner

    @property
    def dense_offsets(self) -> bool:
        return self._inner.dense_offsets

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        return await self._link._publish(room, partial(self._inner.publish, room, payload, history, publication_id))

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        return self._link._subscribe(room, channel, self._inner.subscribe)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        await self._link._check()
        return await self._inner.read_after(room, history, offset, limit, seen=seen)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        await self._link._check()
        return await self._inner.read_before(room, history, offset, limit)
