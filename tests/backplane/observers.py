"""Numbered publications that flow between nodes all the time, and observers who miss nothing in silence.

A fault is then one line in a test: `open_flow` keeps publishing around it, and leaving it checks what everybody saw.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from threading import Event, Thread
from typing import Final, TypeAlias, TypeVar

import attrs
import trio

from tests.backplane.processes import SETTLE_TIMEOUT
from trioroom.backplane.base import Backplane, Lost
from trioroom.backplane.open import open_backplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed

T = TypeVar("T")
Seen: TypeAlias = "tuple[int, int] | Lost"
"""Node and number, or what was told instead."""

PUBLISH_INTERVAL: Final = 0.01  # seconds between an answer and the next publication, for each node and room
SAMPLE_INTERVAL: Final = 0.02
DEAF_AND_READY: Final = 1.0 + 2.0  # the bound that RedisSettings states: probe_interval + probe_timeout
SLACK: Final = 0.4  # of a machine that others use too
END: Final = b"end"


@asynccontextmanager
async def open_nodes(*urls: str) -> AsyncIterator[Sequence[Backplane]]:
    """A backplane for each URL, as if each were in a process of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_backplane(url)) for url in urls]


@contextmanager
def kept_open(opening: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What ``opening`` opens, for tests that each have a Trio of their own: a thread keeps it."""
    opened: list[T] = []
    open_now, done = Event(), Event()

    async def keep() -> None:
        async with opening() as value:
            opened.append(value)
            open_now.set()
            await trio.to_thread.run_sync(done.wait)

    thread = Thread(target=trio.run, args=[keep])
    thread.start()
    try:
        assert open_now.wait(4 * SETTLE_TIMEOUT), "not opened; a thread's error should say why"
        yield opened[0]
    finally:
        done.set()
        thread.join()


@attrs.define(eq=False)
class _Source:
    """The publications of one node to one room; their numbers count from 0."""

    count: int = 0
    failed: set[int] = attrs.field(factory=set)


class Flow:
    """Made by `open_flow`. What it waits for is printed with its time: see it with ``pytest -rP``."""

    def __init__(self, nodes: Sequence[Backplane], rooms: Sequence[str]) -> None:
        self.rooms = rooms
        self.seen: dict[tuple[int, str], list[Seen]] = {(n, r): [] for n in range(len(nodes)) for r in rooms}
        """By observer, which is node and room."""
        self._nodes = nodes
        self._sources = {key: _Source() for key in self.seen}
        self._latest = {(*key, n): -1 for key in self.seen for n in range(len(nodes))}  # number, by observer and source
        self._heard_at = [trio.current_time()] * len(nodes)
        self._samples: list[list[tuple[float, bool]]] = [[] for _ in nodes]
        self._deaf_and_ready: list[str] = []
        self._ending = False
        self._at_end: set[tuple[int, str]] = set()

    # -- for the tests ---------------------------------------------------------------------------

    async def flows(self, within: float, rooms: Iterable[str] | None = None) -> float:
        """Until each node hears in each room what each node has published since now; the seconds it took."""
        wanted = {(n, room) for room in rooms or self.rooms for n in range(len(self._nodes))}
        marks = {key: self._sources[key].count for key in wanted}

        def flowing() -> bool:
            return all(
                self._latest[(n, room, p)] >= marks[p, room] for n, room in wanted for p in range(len(self._nodes))
            )

        return await self._until(flowing, "traffic flows", within)

    async def told(
        self, within: float, rooms: Iterable[str] | None = None, nodes: Iterable[int] | None = None
    ) -> float:
        """Until each of these observers has been told a `Lost`; the seconds it took."""
        wanted = [(n, room) for room in rooms or self.rooms for n in nodes or range(len(self._nodes))]
        return await self._until(lambda: all(map(self.losses, wanted)), "losses are told", within)

    async def becomes(self, ready: bool, within: float, nodes: Iterable[int] | None = None) -> float:
        """Until these nodes are ready, or are not; the seconds it took."""
        wanted = list(nodes or range(len(self._nodes)))
        return await self._until(
            lambda: all(self._nodes[n].ready == ready for n in wanted), f"{wanted} ready: {ready}", within
        )

    def losses(self, observer: tuple[int, str]) -> list[Lost]:
        """What this observer was told."""
        return [seen for seen in self.seen[observer] if isinstance(seen, Lost)]

    def noticed(self) -> set[tuple[int, str]]:
        """The observers who were told of any loss."""
        return {observer for observer in self.seen if self.losses(observer)}

    def failures(self, room: str) -> int:
        """How many publications to ``room`` raised."""
        return sum(len(self._sources[n, room].failed) for n in range(len(self._nodes)))

    def was_ready(self, node: int, since: float, until: float | None = None) -> bool:
        """Whether any look at ``ready`` between these moments found it True."""
        until = trio.current_time() if until is None else until
        return any(ready for time, ready in self._samples[node] if since <= time <= until)

    def always_ready(self, node: int) -> bool:
        """Whether every look did."""
        return all(ready for _, ready in self._samples[node])

    async def _until(self, condition: Callable[[], bool], what: str, within: float) -> float:
        start = trio.current_time()
        with trio.move_on_after(within + SLACK) as scope:
            while not condition():  # noqa: ASYNC110  # many things change it
                await trio.sleep(0.002)
        took = trio.current_time() - start
        print(f"{what}: {took:.3f} s")
        assert not scope.cancelled_caught, f"not within {within} s: {what}"
        return took

    # -- tasks -----------------------------------------------------------------------------------

    async def publish(self, node: int, room: str) -> None:
        """One after the other, until `_ending`."""
        source = self._sources[node, room]
        while not self._ending:
            number = source.count
            source.count += 1
            try:
                await self._nodes[node].publish(room, b"%d %d" % (node, number))
            except BackplaneUnavailable:
                source.failed.add(number)
            await trio.sleep(PUBLISH_INTERVAL)

    async def observe(self, node: int, room: str, deliveries: RoomChannel) -> None:
        """Write down what comes; what has no number is somebody's noise."""
        while True:
            delivery = await deliveries.receive()
            if isinstance(delivery, Lost):
                self.seen[node, room].append(delivery)
                continue
            assert isinstance(delivery, bytes)
            if delivery == END:
                self._at_end.add((node, room))
            elif delivery[:1].isdigit():
                publisher, number = map(int, delivery.split())
                self.seen[node, room].append((publisher, number))
                self._latest[(node, room, publisher)] = number
                self._heard_at[node] = trio.current_time()

    async def sample(self) -> None:
        """Look at ``ready``: publications are tried all the time, so a node that hears none for long is deaf."""
        ready_since = [math.inf] * len(self._nodes)
        while True:
            now = trio.current_time()
            for number, node in enumerate(self._nodes):
                self._samples[number].append((now, node.ready))
                ready_since[number] = min(ready_since[number], now) if node.ready else math.inf
                silence = now - self._heard_at[number]
                just_back = now - ready_since[number] < SLACK  # so that the first publication is on its way
                if node.ready and silence > DEAF_AND_READY + SLACK and not just_back:
                    self._deaf_and_ready.append(f"node {number} is ready and has heard nothing for {silence:.2f} s")
            await trio.sleep(SAMPLE_INTERVAL)

    # -- the end ---------------------------------------------------------------------------------

    async def end(self, publishers: trio.Nursery) -> None:
        """Until all that was published has come, or never will."""
        self._ending = True
        with trio.fail_after(10):
            while publishers.child_tasks:  # noqa: ASYNC110  # their ends, in any order
                await trio.sleep(0.002)
            while missing := self.seen.keys() - self._at_end:  # again, as a loss may stand for it
                for room in {room for _, room in missing}:
                    await self._nodes[0].publish(room, END)
                await trio.sleep(0.05)

    def check(self, *, failed_may_be_late: bool) -> None:
        """Nothing twice, nothing out of order, nothing lost in silence, and in the end everybody is ready."""
        assert self._deaf_and_ready == []
        assert [node.ready for node in self._nodes] == [True] * len(self._nodes)
        for node, room in self.seen:
            for publisher in range(len(self._nodes)):
                self._check(node, room, publisher, failed_may_be_late)

    def _check(self, node: int, room: str, publisher: int, failed_may_be_late: bool) -> None:
        source = self._sources[publisher, room]
        seen_by_any = {seen for n in range(len(self._nodes)) for seen in self.seen[n, room]}
        who = f"node {node}, room {room!r}, publications of node {publisher}"
        expected, told = 0, False
        before: set[int] = set()
        for seen in [*self.seen[node, room], (publisher, source.count)]:
            if isinstance(seen, Lost):
                told = True
            elif seen[0] == publisher:
                assert seen[1] not in before, f"{who}: {seen[1]} comes again"
                before.add(seen[1])
                if failed_may_be_late and seen[1] < expected and seen[1] in source.failed:
                    continue
                assert seen[1] >= expected, f"{who}: {seen[1]} comes too late"
                hole = [n for n in range(expected, seen[1]) if n not in source.failed or (publisher, n) in seen_by_any]
                assert told or not hole, f"{who}: {hole} are missing before {seen[1]}, and no loss was told there"
                expected, told = seen[1] + 1, False


@asynccontextmanager
async def open_flow(
    nodes: Sequence[Backplane], rooms: Sequence[str], *, failed_may_be_late: bool = False
) -> AsyncIterator[Flow]:
    """Publish from each node to each room, and observe each room at each node; leaving ends and checks that.

    Args:
        failed_may_be_late: what failed may have gone out or not, and may also come after what was published later.
    """
    async with AsyncExitStack() as stack, trio.open_nursery() as observers:
        flow = Flow(nodes, rooms)
        for node, room in flow.seen:
            deliveries = await stack.enter_async_context(subscribed(nodes[node], room, 1024))
            observers.start_soon(flow.observe, node, room, deliveries)
        observers.start_soon(flow.sample)
        async with trio.open_nursery() as publishers:
            for node, room in flow.seen:
                publishers.start_soon(flow.publish, node, room)
            await flow.flows(2.0)
            yield flow
            await flow.end(publishers)
        observers.cancel_scope.cancel()
        flow.check(failed_may_be_late=failed_may_be_late)
