"""What runs beside a body ends with it, and neither hides what the other raises."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trioroom.backplane.background import run_in_background


async def wait_for_the_end(log: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    try:
        log.append("began")
        await trio.lowlevel.checkpoint()
        task_status.started()
        log.append("goes on")
        await trio.sleep_forever()
    finally:
        log.append("ended")


async def fail(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("broken")


async def test_it_runs_beside_the_body_and_has_ended_after_it() -> None:
    log: list[str] = []
    async with run_in_background(partial(wait_for_the_end, log)):
        assert log == []
        await trio.testing.wait_all_tasks_blocked()
        log.append("body")
    assert log == ["began", "goes on", "body", "ended"]


async def test_body_begins_when_it_has_started_if_asked_for() -> None:
    log: list[str] = []
    async with run_in_background(partial(wait_for_the_end, log), wait_started=True):
        assert log[0] == "began"
    assert log[-1] == "ended"


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt("mine"), ExceptionGroup("mine", [KeyError()])])
async def test_what_the_body_raises_comes_out_as_it_is_when_the_task_has_ended(error: BaseException) -> None:
    log: list[str] = []
    with pytest.raises(type(error), match="mine") as raised:
        async with run_in_background(partial(wait_for_the_end, log), wait_started=True):
            raise error
    assert raised.value is error
    assert log[-1] == "ended"


async def test_body_is_cancelled_when_the_task_fails() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="broken")):
        async with run_in_background(fail):
            await trio.sleep_forever()


async def test_task_that_does_not_start_raises_its_own_error() -> None:
    with pytest.raises(OSError, match="broken"):
        async with run_in_background(fail, wait_started=True):
            pytest.fail("it has not started")


async def test_task_that_returns_leaves_the_body_alone() -> None:
    async with run_in_background(trio.lowlevel.checkpoint):
        await trio.testing.wait_all_tasks_blocked()


async def test_cancelling_from_outside_goes_through() -> None:
    log: list[str] = []
    with trio.CancelScope() as scope:
        async with run_in_background(partial(wait_for_the_end, log), wait_started=True):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert log[-1] == "ended"
