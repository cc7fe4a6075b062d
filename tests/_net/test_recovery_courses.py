"""Whatever happens to deliveries and to the store: every member is complete and in order, or knows where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import trioroom
from tests._net.losing_store import SIZE, LosingBackplane, Store
from tests.backplane.reconnecting import GAP, ROOM, Client, lacks
from trioroom._core.history import History
from trioroom.testing import open_test_server


class Scene:
    """A server on that store, one client that stays and two that come and go."""

    def __init__(self, server: trioroom.Server, app: trioroom.App, store: Store, nursery: trio.Nursery) -> None:
        self.server, self.app, self.store, self.nursery = server, app, store, nursery
        self.clients = [Client(tcp=False) for _ in range(3)]
        self.stays: dict[Client, trio.CancelScope] = {}
        self.published = 0

    def come(self, number: int) -> None:
        client = self.clients[number]
        if client not in self.stays:
            self.stays[client] = trio.CancelScope()
            self.nursery.start_soon(self._stay, client, self.stays[client])

    async def _stay(self, client: Client, scope: trio.CancelScope) -> None:
        with scope:
            await client.stay(self.server, 1e6)
        if self.stays.get(client) is scope:
            del self.stays[client]

    def go(self, number: int) -> None:
        scope = self.stays.pop(self.clients[number], None)
        if scope is not None:
            scope.cancel()

    async def publish(self, deliveries: int = 1) -> None:
        self.store.deliveries = deliveries
        await self.app.publish(ROOM, [0, self.published])
        self.published += 1

    async def act(self, what: str, number: int) -> None:
        match what:
            case "publish":
                for _ in range(number):
                    await self.publish()
            case "drop":
                await self.publish(deliveries=0)
            case "twice":
                await self.publish(deliveries=2)
            case "overflow":
                await self.publish(deliveries=0)
                self.store.interrupt("overflow")
            case "restart":
                self.store.restart(number)
            case "flush":
                self.store.flush()
            case "forget":
                self.store.forget(number)
            case "outage":
                self.store.is_up = False
                await trio.sleep(number)
                self.store.is_up = True
            case "come":
                self.come(1 + number % 2)
            case "go":
                self.go(1 + number % 2)
            case "while_read":  # a confirmed publication and a restart meet a read that is under way

                async def happens() -> None:
                    await self.publish(deliveries=number % 2)
                    self.store.restart(number % 3)

                self.store.before_read = happens
                self.store.interrupt("backplane")
                await trio.sleep(0.1)
            case "wait":
                await trio.sleep(0.1)


ACTS = (
    "publish", "drop", "twice", "overflow", "restart", "flush", "forget", "outage", "come", "go", "while_read", "wait",
)  # fmt: skip


HOLES = st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=5)


@pytest.mark.untraced
@given(acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 10)), max_size=40), holes=HOLES)
@settings(max_examples=settings().max_examples * 3)
@example([("come", 1), ("publish", 3), ("wait", 0), ("go", 1), ("publish", 3), ("restart", 2), ("come", 1)], None)
@example([("come", 1), ("wait", 0), ("publish", 5), ("wait", 0), ("restart", 3), ("publish", 1), ("wait", 0)], None)
@example([("publish", 1), ("restart", 0), ("restart", 0)], None)
@example([("publish", 2), ("while_read", 1), ("publish", 1), ("restart", 1), ("publish", 1)], None)
@example([("come", 1), ("go", 1), ("publish", 9), ("come", 1), ("forget", 10), ("drop", 0), ("flush", 0)], None)
def test_sequence_is_complete_or_has_a_gap_where_it_is_not(
    acts: Sequence[tuple[str, int]], holes: list[int] | None
) -> None:
    async def course() -> None:
        app, store = trioroom.App(), Store(holes)

        class Room(trioroom.Room):
            history = History(SIZE, ttl=1e6)

        app.route("room/{name}", Room)
        quiet = trioroom.Settings(ping_interval=float("inf"), close_timeout=1.0, leave_timeout=1.0, drain_timeout=1.0)
        async with (
            open_test_server(app, quiet, backplane=LosingBackplane(store)) as server,
            trio.open_nursery() as nursery,
        ):
            scene = Scene(server, app, store, nursery)
            scene.come(0)  # so that the room is active: it knows what has been confirmed
            await trio.sleep(0.1)
            for what, number in acts:
                await scene.act(what, number)
            for number in range(3):
                scene.come(number)
            await trio.sleep(0.1)
            await scene.publish()
            await trio.sleep(1)
            for client in scene.clients:
                assert lacks(client.sequence, [scene.published]) == [], client.sequence
            stays = scene.clients[0].sequence
            # Only the latest epoch before is known: two restarts in a row may cost a gap that nothing is missing in.
            happened = [what for what, _ in acts]
            restarts = happened.count("restart") + happened.count("while_read")
            if not store.lost and "forget" not in happened and restarts < 2:
                missed = sum(number if what == "publish" else 1 for what, number in acts) > SIZE
                assert missed or GAP not in stays, "told a gap where nothing is missing"
            nursery.cancel_scope.cancel()

    trio.run(course, clock=MockClock(autojump_threshold=0))
