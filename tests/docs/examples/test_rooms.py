"""Rooms of the documentation, each in one file, do what the page beside them says."""

from __future__ import annotations

import re

import trio
from trio.testing import MockClock

from tests.docs.examples.running import EXAMPLES, ROOT
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer


def test_chat_of_the_readme_is_the_one_that_is_tested() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert (EXAMPLES / "chat.py").read_text("utf-8") in blocks


async def test_first_room_sends_back_to_everybody() -> None:
    from first_room import app

    async with open_test_server(app) as server, open_peer(server, "/echo") as one, open_peer(server, "/echo") as two:
        await one.send("hello")
        assert (await one.receive(), await two.receive()) == ("hello", "hello")


async def test_chat_tells_who_came_what_was_said_and_who_left() -> None:
    from chat import app

    async with open_test_server(app) as server, open_peer(server, "/chat/lobby") as one:
        async with open_peer(server, "/chat/lobby") as two:
            assert re.fullmatch(r"\* \w{16} came to lobby", str(await one.receive()))
            await two.send("hello")
            assert re.fullmatch(r"\w{16}: hello", str(await one.receive()))
        assert re.fullmatch(r"\* \w{16} left: connection lost", str(await one.receive()))


async def test_list_of_who_is_here_follows_what_the_server_says(autojump_clock: MockClock) -> None:
    from who_is_here import app
    from who_is_here_client import WhoIsHere

    async def follow(v1: V1Peer, here: WhoIsHere) -> None:
        with trio.move_on_after(5):
            while True:
                if (question := here.receive(await v1.receive())) is not None:
                    await v1.send(question)

    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        assert (await v1.request("join", room="lounge/a"))["code"] == "denied"
        await v1.request("auth", token="Ann")
        await v1.join("lounge/a")
        here = WhoIsHere("lounge/a")
        await v1.send(here.ask())
        async with open_peer(server, "/lounge/a?name=Bob"), open_peer(server, "/lounge/a?name=Bob"):
            await follow(v1, here)
            assert (here.users, here.count) == ({"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}, 2)
            answer = await v1.request("call", room="lounge/a", data="who?")
            assert answer["data"] == "2 here, among them ann, bob"
        await follow(v1, here)
        assert (here.users, here.count) == ({"ann": {"name": "Ann"}}, 1)
