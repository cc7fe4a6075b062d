"""Linked servers, as who watches one of them sees all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._core.snapshot import Snapshot
from trioroom._net.operator import Operator
from trioroom._wire.control import Command, Result
from trioroom.backplane.memory import MemoryBackplane
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import open_peer, open_test_server


class Away(MemoryBackplane):
    """A broker that can be out of reach."""

    away = False

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if self.away:
            raise BackplaneUnavailable("away")
        await super().publish(room, payload, publication_id)


@asynccontextmanager
async def open_linked(servers: int, backplane: MemoryBackplane | None) -> AsyncIterator[list[trioroom.App]]:
    async with AsyncExitStack() as stack:
        apps = []
        for _ in range(servers):
            app = trioroom.App()
            app.route("chat/{name}", trioroom.Room)
            await stack.enter_async_context(open_test_server(app, backplane=backplane))
            apps.append(app)
        await wait_all_tasks_blocked()  # until they know each other
        yield apps


def operator_of(app: trioroom.App) -> Operator:
    operator = app._operator
    assert operator is not None
    return operator


async def look(app: trioroom.App) -> list[Snapshot]:
    return await operator_of(app).snapshots()


async def test_server_without_links_sees_itself() -> None:
    async with open_linked(1, None) as [app]:
        assert len(await look(app)) == 1


async def test_each_server_sees_all_at_once(autojump_clock: MockClock) -> None:
    async with open_linked(3, MemoryBackplane()) as apps:
        before = trio.current_time()
        seen = [{snapshot.node for snapshot in await look(app)} for app in apps]
        assert trio.current_time() == before, "nobody waits for the timeout"
        assert seen == [{operator_of(app).control.node for app in apps}] * 3


async def test_others_are_seen_with_their_members() -> None:
    backplane = MemoryBackplane()
    async with open_linked(1, backplane) as [here]:
        app = trioroom.App()
        app.route("chat/{name}", trioroom.Room)
        async with open_test_server(app, backplane=backplane) as there, open_peer(there, "/chat/a"):
            await wait_all_tasks_blocked()
            own, other = await look(here)
            assert (own.members, other.members) == (0, 1)
            assert [room.name for room in other.busy_rooms] == ["chat/a"]


async def test_server_that_does_not_answer_in_a_second_is_left_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(command: Command) -> Result:
        await trio.sleep_forever()

    async with open_linked(3, MemoryBackplane()) as apps:
        monkeypatch.setattr(operator_of(apps[2]).control, "_carry_out", hang)
        before = trio.current_time()
        assert len(await look(apps[0])) == 2
        assert trio.current_time() - before == pytest.approx(1.0)


async def test_server_that_is_cut_off_sees_itself() -> None:
    backplane = Away()
    async with open_linked(2, backplane) as apps:
        backplane.away = True
        assert [snapshot.node for snapshot in await look(apps[0])] == [operator_of(apps[0]).control.node]
        backplane.away = False
        assert len(await look(apps[0])) == 2
