"""Rows of closed seats that the broker takes too long to remove."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from trioroom.backplane import removals
from trioroom.backplane.removals import Removals


async def test_id_is_given_up_once_for_all_seats_that_close_together(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(removals, "MAX_OWED", 3)
    given_up: list[float] = []

    async def remove(table: bytes, seat: str) -> None:
        await trio.sleep_forever()

    owing = Removals("kafka", remove, lambda: given_up.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(owing.close, b"", [f"seat {number}"])
    assert len(given_up) == 1
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    async with trio.open_nursery() as nursery:  # and again when there are as many of the next one
        for number in range(5):
            nursery.start_soon(owing.close, b"", [f"seat {number}"])
    assert len(given_up) == 2
