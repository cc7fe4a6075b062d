"""Tests of running_chat.py, run by pytest with pytest-trio and ``trio_mode = true``."""

from running_chat import app

from trioroom.testing import open_test_server, open_v1_peer


async def test_who_comes_later_gets_what_was_said() -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann, open_v1_peer(server) as bob:
        await ann.request("auth", token="ann")
        await ann.join("chat/lobby")
        await ann.request("publish", room="chat/lobby", data="hello")

        await bob.request("auth", token="bob")
        await bob.join("chat/lobby")
        kept = await bob.request("history", room="chat/lobby")
        assert [message["data"] for message in kept["messages"]] == [{"name": "ann", "text": "hello"}]


async def test_others_see_who_comes(autojump_clock: object) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann, open_v1_peer(server) as bob:
        await ann.request("auth", token="ann")
        await ann.request("join", room="chat/lobby", presence=True)
        await bob.request("auth", token="bob")
        await bob.join("chat/lobby")
        here: set[str] = set()
        while here != {"ann", "bob"}:
            told = await ann.receive()
            here |= {each["user"] for each in told["joined"]}


async def test_who_says_no_name_is_not_let_in() -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as nobody:
        answer = await nobody.request("join", room="chat/lobby")
        assert answer["message"] == "say who you are: connect with a token"
