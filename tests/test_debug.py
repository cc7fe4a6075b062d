"""The tree of tasks of a run that goes on."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints

from trioroom.debug import dump_tasks


async def tree() -> str:
    file = io.StringIO()
    await dump_tasks(file)
    return file.getvalue()


async def sleep_in_two_lines(number: int) -> None:
    if number:
        await trio.sleep(1_000)
    else:
        await trio.sleep(1_000)


async def test_tree_tells_names_counts_and_where_tasks_wait(nursery: trio.Nursery) -> None:
    async def connection(channel: trio.MemoryReceiveChannel[None]) -> None:
        async with trio.open_nursery() as own:
            own.start_soon(trio.sleep_forever, name="writer")
            await channel.receive()

    _send, receive = trio.open_memory_channel[None](0)
    for _ in range(250):
        nursery.start_soon(connection, receive, name="connection")
    nursery.start_soon(trio.sleep, 1_000, name="room chat/a")
    await trio.testing.wait_all_tasks_blocked()
    told = await tree()
    assert re.match(r"\d+ tasks, counted in \d\.\d\d s\n", told)
    (connections,) = re.findall(r"^( *)(connection ×250 .*)\n( *)(writer ×250 .*)$", told, re.M)
    assert len(connections[2]) == len(connections[0]) + 2
    where = r"tests/test_debug\.py:\d+ test_tree_tells\S+\.<locals>\.connection → MemoryReceiveChannel\.receive"
    assert re.fullmatch(rf"connection ×250  {where}", connections[1])
    assert connections[3] == "writer ×250  sleep_forever"
    assert re.search(r"^ *room chat/a  sleep$", told, re.M)
    nursery.cancel_scope.cancel()


async def test_lines_of_one_function_are_told_of_one_group(nursery: trio.Nursery) -> None:
    for number in (0, 1, 1):
        nursery.start_soon(sleep_in_two_lines, number)
    await trio.testing.wait_all_tasks_blocked()
    (found,) = re.findall(
        r"sleep_in_two_lines ×3  tests/test_debug\.py:([\d,]+) sleep_in_two_lines → sleep", await tree()
    )
    first, second = map(int, found.split(","))
    assert second == first + 2


async def test_tasks_that_were_told_to_end_are_seen(nursery: trio.Nursery) -> None:
    async def stubborn(release: trio.Event, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as own:
            task_status.started(own.cancel_scope)
            with trio.move_on_after(5, shield=True):
                await release.wait()

    release = trio.Event()
    scope = await nursery.start(stubborn, release)
    assert "[1 cancelled]" not in await tree()
    scope.cancel()
    assert re.search(r"stubborn \[1 cancelled\]", await tree())
    release.set()


async def test_asynchronous_generators_are_seen_through(nursery: trio.Nursery) -> None:
    async def numbers() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 1

    async def count() -> None:
        async for _ in numbers():
            pass

    nursery.start_soon(count, name="counting")
    await trio.testing.wait_all_tasks_blocked()
    assert re.search(r"counting  tests/test_debug\.py:\d+ \S+\.numbers → sleep_forever", await tree())


async def test_tasks_come_and_go_while_they_are_counted(nursery: trio.Nursery) -> None:
    """And others run: no slice is long."""

    async def brief() -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()

    async def churn() -> None:
        while True:
            async with trio.open_nursery() as inner:
                for _ in range(50):
                    inner.start_soon(brief)

    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    for _ in range(5_000):
        nursery.start_soon(trio.sleep_forever, name="idle")
    for _ in range(10):
        nursery.start_soon(churn)
    nursery.start_soon(turn)
    await trio.lowlevel.checkpoint()
    before = turns
    told = await tree()
    assert turns - before >= 20
    assert "idle ×5,000" in told
    nursery.cancel_scope.cancel()


async def test_standard_error_is_the_default_and_it_is_one_write(capsys: pytest.CaptureFixture[str]) -> None:
    with assert_checkpoints():
        for _ in range(250):  # few tasks need no slice: it is a checkpoint all the same
            pass
        await dump_tasks()
    assert "tasks, counted in" in capsys.readouterr().err


async def test_lines_are_as_few_as_asked_for(nursery: trio.Nursery) -> None:
    for letter in "abcdefghijklmnop":
        nursery.start_soon(trio.sleep_forever, name=letter)
    file = io.StringIO()
    await dump_tasks(file, max_lines=8)
    assert len(file.getvalue().splitlines()) <= 9


async def test_cancelled_it_writes_nothing() -> None:
    file = io.StringIO()
    with trio.CancelScope() as scope:
        scope.cancel()
        await dump_tasks(file)
    assert scope.cancelled_caught
    assert file.getvalue() == ""
