"""Tests of chat.py, run by pytest with pytest-trio and ``trio_mode = true``."""

import pytest
from chat import app

import trioroom
from trioroom.testing import open_peer, open_test_server


async def test_others_hear_what_is_said() -> None:
    async with (
        open_test_server(app) as server,
        open_peer(server, "/chat/lobby") as ada,
        open_peer(server, "/chat/lobby") as grace,
    ):
        assert str(await ada.receive()).endswith("came to lobby")
        await grace.send("hello")
        assert str(await ada.receive()).endswith(": hello")


async def test_silent_peer_is_dropped(autojump_clock: object) -> None:
    settings = trioroom.Settings(ping_interval=25, ping_timeout=10)
    async with open_test_server(app, settings) as server, open_peer(server, "/chat/lobby") as ada:
        ada.answers = False
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await ada.receive()
        assert closed.value.code == trioroom.CloseCode.PING_TIMEOUT
