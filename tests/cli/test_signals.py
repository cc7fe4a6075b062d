"""What signals ask for, and what is made of a terminal that is gone."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys

import pytest
import trio
import trio.testing

from tests.cli.conftest import DEADLINE, open_command
from trioroom.cli.signals import open_stop

ON_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "trioroom", *sys.argv[2:]])
"""


async def test_signal_before_anybody_is_served_ends_all() -> None:
    with trio.fail_after(DEADLINE):
        async with open_stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep_forever()
    assert stop.all.cancelled_caught


async def test_first_signal_drains_and_second_one_spares_the_backplane() -> None:
    with trio.fail_after(DEADLINE):
        async with open_stop() as stop:
            with stop.at_once:
                stop.serving = True
                signal.raise_signal(signal.SIGINT)
                await stop.begun.wait()
                await trio.lowlevel.checkpoint()
                signal.raise_signal(signal.SIGINT)
                await trio.sleep_forever()
    assert stop.at_once.cancelled_caught
    assert not stop.all.cancel_called


async def test_worker_takes_further_signals_for_the_first_one() -> None:
    with trio.fail_after(DEADLINE):
        async with open_stop(patient=True) as stop:
            stop.serving = True
            for _ in range(3):
                stop.ask()
            assert stop.begun.is_set()
            assert not stop.at_once.cancel_called
            stop.insist()
            assert stop.at_once.cancel_called
            assert not stop.all.cancel_called


async def test_hangup_is_for_who_waits_for_it_then_or_later() -> None:
    with trio.fail_after(DEADLINE):
        async with open_stop() as stop:
            for _ in range(2):
                signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
            await stop.wait_hangup()
            with trio.move_on_after(0.05) as waiting:
                await stop.wait_hangup()
            assert waiting.cancelled_caught, "two that come together are one"
            assert not stop.begun.is_set()


async def test_hangup_that_nobody_waits_for_does_no_harm() -> None:
    async with open_stop() as stop:
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
    assert not stop.begun.is_set()


@pytest.mark.parametrize("patient", [False, True])
async def test_hangup_of_our_terminal_asks_to_stop_unless_there_is_a_parent_to_do_so(
    patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminals = {1, 2}
    monkeypatch.setattr(os, "isatty", terminals.__contains__)
    async with open_stop(patient=patient) as stop:
        stop.serving = True
        stop.hang_up()
        assert not stop.begun.is_set()
        terminals.clear()
        stop.hang_up()
        assert stop.begun.is_set() == (not patient)


async def test_signals_up_to_the_very_end_leave_the_exit_code_alone() -> None:
    signals = itertools.cycle((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    async with open_command("demo", "--port", "0") as command:
        await command.wait_port()
        while command.process.poll() is None:  # amid the drain, after it, and while Python cleans up
            command.process.send_signal(next(signals))
            await trio.sleep(0.002)
        assert await command.wait_ended() == 0
    assert "Traceback" not in command.output


@pytest.mark.parametrize("options", [[], ["--workers", "2", "--backplane", "embedded"]])
async def test_closed_terminal_ends_the_server(options: list[str]) -> None:
    ours, theirs = os.openpty()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", ON_TERMINAL, str(theirs), "demo", "--port", "0", *options],
        pass_fds=[theirs],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        said = b""
        with trio.fail_after(DEADLINE):
            while re.search(rb"trioroom serves http://\S+", said) is None:
                await trio.lowlevel.wait_readable(ours)
                said += os.read(ours, 4_096)
        os.close(ours)
        with trio.fail_after(DEADLINE):
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
