"""Hooks that refuse what a member asks, with `RequestRefused`: it is told, nothing is logged, and it stays."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.conftest import app_of, closed_with
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Scales(trioroom.Room):
    """Takes numbers up to 10."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        self.weigh(message.data)
        await self.publish(message.data)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        async with trio.open_nursery() as nursery:  # which wraps what is raised in a group
            nursery.start_soon(self.weigh_in_task, message.data)
        return "weighed"

    async def weigh_in_task(self, data: object) -> None:
        self.weigh(data)

    def weigh(self, data: object) -> None:
        if data == "never":
            raise trioroom.RequestRefused("too_heavy", "11 is too heavy; try up to 10")
        if data == "later":
            raise trioroom.RequestRefused("busy", "one at a time", retry=True, after=2.0)


@pytest.mark.parametrize("type", ["call", "publish"])
async def test_refusal_is_the_answer_and_the_connection_stays(
    type: str, subprotocol: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_test_server(app_of(Scales)) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("room/a")
        refused = {"type": "error", "id": 2, "code": "too_heavy", "message": "11 is too heavy; try up to 10"}
        assert await v1.request(type, room="room/a", data="never") == {**refused, "retry": False, "after": None}
        refused = {"type": "error", "id": 3, "code": "busy", "message": "one at a time"}
        assert await v1.request(type, room="room/a", data="later") == {**refused, "retry": True, "after": 2.0}
        assert (await v1.request(type, room="room/a", data="feather"))["type"] == "ok"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_publication_without_id_is_refused_too(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Scales)) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.send({"type": "publish", "room": "room/a", "data": "never"})
        refused = await v1.receive()
        assert (refused["type"], refused["id"], refused["code"]) == ("error", None, "too_heavy")


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [("never", 1008, "11 is too heavy; try up to 10"), ("later", 1013, "one at a time")],
)
async def test_plain_peer_has_no_answers_and_is_closed_with_the_refusal(
    message: str, code: int, reason: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_test_server(app_of(Scales)) as server, open_peer(server, "/room/a") as peer:
        await peer.send(message)
        assert await closed_with(peer) == (code, reason)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_client_gets_the_error_that_the_room_has_raised() -> None:
    async with trioroom.open_server(app_of(Scales), port=0) as server:
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/") as client, client.join("room/a") as room:
            with pytest.raises(trioroom.RequestRefused) as refused:
                await room.call("later")
            assert (refused.value.code, refused.value.retry, refused.value.after) == ("busy", True, 2.0)
            assert await room.call("feather") == "weighed"


class Mixed(trioroom.Room):
    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        raise ExceptionGroup("both", [trioroom.RequestRefused("no", "no"), ValueError("on_call is broken")])


async def test_failure_beside_a_refusal_is_a_failure(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Mixed)) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        assert (await v1.request("call", room="room/a", data=1))["code"] == "failed"


class Forwarding(trioroom.Room):
    """Asks another server."""

    url: str

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        async with trioroom.connect(self.url) as client, client.join("room/a") as scales:
            return await scales.call(message.data)

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.on_call(member, message)


@pytest.mark.parametrize("type", ["call", "publish"])
async def test_refusal_by_another_server_is_a_failure_and_not_told(type: str, caplog: pytest.LogCaptureFixture) -> None:
    """Else the member would get what was meant for us, and nobody would hear of it."""
    async with trioroom.open_server(app_of(Scales), port=0) as other:
        Forwarding.url = f"ws://127.0.0.1:{other.port}/"
        async with open_test_server(app_of(Forwarding)) as server, open_v1_peer(server) as v1:
            await v1.join("room/a")
            await v1.send({"type": type, "id": 2, "room": "room/a", "data": "never"})
            with trio.fail_after(10):
                if type == "call":
                    assert (await v1.receive())["code"] == "failed"
                with pytest.raises(trioroom.ConnectionClosed, match="1011"):
                    await v1.receive()
    assert "RequestRefused: too_heavy" in caplog.text


class Later(trioroom.Room):
    """Takes what it has refused once."""

    refused = False
    after = 0.01

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if not self.refused:
            self.refused = True
            raise trioroom.RequestRefused("busy", "one at a time", retry=True, after=self.after)
        member.send("taken")


@pytest.mark.parametrize("after", [0.01, -1.0])
async def test_client_publishes_again_what_was_refused_for_now(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Later, "after", after)
    async with trioroom.open_server(app_of(Later), port=0) as server:
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/") as client, client.join("room/a") as room:
            await room.publish("stone")
            assert (await anext(room)).data == "taken"
