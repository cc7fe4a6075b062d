"""Tasks that outlive what started them are told, and where they are."""

from __future__ import annotations

import pytest
import trio

import trioroom
from tests.conftest import app_of
from trioroom.testing import assert_no_orphans, open_client, open_line, open_peer, open_test_server, open_v1_peer


async def forgotten() -> None:
    await trio.sleep_forever()


async def forgetful() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forgotten, name="child")


async def test_tasks_that_are_left_are_told_with_where_they_are(nursery: trio.Nursery) -> None:
    nursery.start_soon(forgotten, name="older")

    async def leave_some() -> None:
        async with assert_no_orphans():
            nursery.start_soon(forgetful, name="parent")
            for number in range(3):
                nursery.start_soon(forgotten, name=f"one of many {number}")

    with pytest.raises(AssertionError) as told:
        await leave_some()
    first, *tree = str(told.value).splitlines()
    assert first.startswith("5 tasks are left ")
    assert "older" not in str(told.value)
    [many] = [line for line in tree if "one ×3" in line]
    assert "test_orphans.py:" in many
    assert "forgotten" in many
    [parent], [child] = ([line for line in tree if name in line] for name in ("parent", "child"))
    indents = [len(line) - len(line.lstrip()) for line in (parent, child)]
    assert indents[0] < indents[1]


async def test_tasks_that_are_about_to_end_may(nursery: trio.Nursery) -> None:
    async def end_soon() -> None:
        for _ in range(10):
            await trio.lowlevel.checkpoint()

    async with assert_no_orphans():
        nursery.start_soon(end_soon)


async def test_error_of_the_body_is_not_hidden(nursery: trio.Nursery) -> None:
    async def fail() -> None:
        async with assert_no_orphans():
            nursery.start_soon(forgotten)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


@pytest.mark.parametrize("tcp", [False, True], ids=["memory", "tcp"])
async def test_servers_leave_none(tcp: bool) -> None:
    async with assert_no_orphans():
        async with open_test_server(app_of(trioroom.Room), tcp=tcp) as server, open_line(server) as line:
            async with (
                open_peer(server, "/room/a", tcp=tcp),
                open_v1_peer(server, tcp=tcp) as v1,
                open_client(line) as client,
                client.join("room/c"),
            ):
                await v1.join("room/b")
