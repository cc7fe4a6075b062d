"""A server and a worker in this process; the commands as a whole are in test_serve.py."""

from __future__ import annotations

import pytest
import trio

import trioroom
from tests.cli.conftest import DEADLINE, serve_options
from trioroom.cli import lifeline
from trioroom.cli.lifeline import open_lifeline
from trioroom.cli.run import serve_until_signal


async def test_worker_serves_until_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, theirs = open_lifeline()
    with theirs:
        monkeypatch.setattr(lifeline, "_STDIN", theirs.fileno())
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_until_signal, trioroom.App(), serve_options(worker=True), None)
                assert await parent.wait_serving() == 20.0
                await parent.stream.aclose()


async def test_lifeline_of_a_worker_that_ended_first_says_so() -> None:
    parent, theirs = open_lifeline()
    async with parent.stream:
        theirs.close()
        with trio.fail_after(DEADLINE):
            assert await parent.wait_serving() is None


async def test_worker_whose_parent_is_gone_may_still_say_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, theirs = open_lifeline()
    with theirs:
        monkeypatch.setattr(lifeline, "_STDIN", theirs.fileno())
        async with lifeline.take_lifeline() as link:
            await parent.stream.aclose()
            with trio.fail_after(DEADLINE):
                await link.say_serving(20.0)
                lost = trio.Event()
                await link.run_until_lost(lost.set)
            assert lost.is_set()
