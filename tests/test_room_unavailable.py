"""Hooks that meet a backplane which is down: told to whom it concerns, as something that passes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.conftest import app_of, close_code, closed_with
from trioroom.backplane.memory import MemoryBackplane
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Outage(MemoryBackplane):
    """Down for those who publish what says so."""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await super().publish(room, payload)
        if b"during the outage" in payload:
            raise BackplaneUnavailable("the broker is down")


class Publishes(trioroom.Room):
    """In each hook, for those who ask for it by the query or a message."""

    async def on_open(self) -> None:
        if self.params["name"] == "on_open":
            await self.publish("during the outage")
        if self.params["name"] == "room_task":
            self.nursery.start_soon(self.tick)

    async def tick(self) -> None:
        await trio.sleep(1)
        await self.publish("during the outage")

    async def on_join(self, member: trioroom.Member) -> object:
        if member.request.query == "on_join" or self.params["name"] == "on_join":
            await self.publish("during the outage")
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "in a nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.publish, "during the outage")
        if message.data == "in a task":
            member.start_soon(self.publish, "during the outage")
        if message.data == "with another failure":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.publish, "during the outage")
                raise ValueError("on_message is broken too")
        await self.publish(message.data, exclude=member)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        await self.publish(message.data)
        return "done"

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await self.publish("during the outage")


@pytest.fixture
async def server(autojump_clock: MockClock) -> AsyncIterator[trioroom.Server]:
    async with open_test_server(app_of(Publishes), backplane=Outage()) as server:
        yield server


@pytest.mark.parametrize("message", ["during the outage", "in a nursery"])
async def test_v1_publish_is_answered_and_the_connection_stays(server: trioroom.Server, message: str) -> None:
    async with open_v1_peer(server) as v1:
        await v1.join("room/a")
        for _ in range(2):
            answer = await v1.request("publish", room="room/a", data=message)
            while answer["type"] == "message":  # what did go out, as it may
                answer = await v1.receive()
            assert (answer["code"], answer["retry"]) == ("unavailable", True)


async def test_v1_publish_without_id_is_told_too(server: trioroom.Server) -> None:
    async with open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.send({"type": "publish", "room": "room/a", "data": "during the outage"})
        error = await v1.receive()
        assert (error["type"], error["id"], error["code"]) == ("error", None, "unavailable")


async def test_v1_call_is_answered_and_the_connection_stays(server: trioroom.Server) -> None:
    async with open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.send({"type": "call", "id": "c", "room": "room/a", "data": "during the outage"})
        answer = await v1.receive_answer("c")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
        assert (await v1.request("leave", room="room/a"))["type"] == "ok"


@pytest.mark.parametrize("hook", ["on_open", "on_join"])
async def test_v1_join_may_be_tried_again(server: trioroom.Server, hook: str) -> None:
    async with open_v1_peer(server) as v1:
        for _ in range(2):
            refused = await v1.request("join", room=f"room/{hook}")
            assert (refused["code"], refused["retry"]) == ("unavailable", True)
        await v1.join("room/a")


async def test_leaving_is_no_reason_to_close(server: trioroom.Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trioroom")
    async with open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.join("room/b")
        assert (await v1.request("leave", room="room/a"))["type"] == "ok"
        assert (await v1.request("publish", room="room/b", data="still here"))["type"] == "ok"
    assert "room/a: on_leave failed: the broker is down" in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}  # or an outage would fill the log


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/room/on_open", None),
        ("/room/a?on_join", None),
        ("/room/a", "during the outage"),
        ("/room/a", "in a task"),
        ("/room/room_task", None),
    ],
)
async def test_plain_peer_is_closed_with_advice_to_come_back(
    server: trioroom.Server, path: str, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_peer(server, path) as peer:
        if message is not None:
            await peer.send(message)
        assert await closed_with(peer) == (
            1013,
            "the other servers are out of reach, or the room is behind; come back later",
        )
    assert "Traceback" not in caplog.text


async def test_failure_of_the_hook_itself_still_counts(server: trioroom.Server) -> None:
    async with open_peer(server, "/room/a") as peer:
        await peer.send("with another failure")
        assert await close_code(peer) == 1011
