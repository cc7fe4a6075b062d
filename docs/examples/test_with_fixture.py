"""Tests of chat.py with the fixtures of trioroom's pytest plugin; ``trio_mode = true``."""

import pytest
from chat import Chat

import trioroom
from trioroom.testing import open_peer


@pytest.fixture
def trioroom_app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    return app


async def test_others_hear_what_is_said(trioroom_server: trioroom.Server) -> None:
    async with open_peer(trioroom_server, "/chat/lobby") as ada, open_peer(trioroom_server, "/chat/lobby") as grace:
        assert str(await ada.receive()).endswith("came to lobby")
        await grace.send("hello")
        assert str(await ada.receive()).endswith(": hello")
