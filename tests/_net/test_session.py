"""Protocol v1 in both encodings: each request of docs/reference/protocol.md and its answer, but for calls."""

from __future__ import annotations

import math

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

JSON, MSGPACK = "trioroom.v1.json", "trioroom.v1.msgpack"


class Board(trioroom.Room):
    """Publishes, as rooms do by default; a message "slow" takes a second."""

    async def on_join(self, member: trioroom.Member) -> object:
        return member.token

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "slow":
            await trio.sleep(1)
        await super().on_message(member, message)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await self.publish({"left": reason})


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("board/{name}", Board)
    return app


async def nothing_comes(v1: V1Peer) -> None:
    """All that was sent has been answered, and nothing else came."""
    await wait_all_tasks_blocked()
    assert (await v1.request("auth", token="last"))["type"] == "ok"
    with trio.move_on_after(1) as scope:
        raise AssertionError(await v1.receive())
    assert scope.cancelled_caught


# -- the requests ----------------------------------------------------------------------------------


async def test_server_speaks_first_on_any_path(app: trioroom.App, subprotocol: str, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=20.5, max_message_bytes=1234)
    async with open_test_server(app, settings) as server:
        for path in ("/", "/board/a", "/no/room/of/ours?x=1"):
            async with open_v1_peer(server, path, subprotocol=subprotocol) as v1:
                assert v1.hello == {
                    "type": "hello",
                    "connection": v1.id,
                    "ping_interval": 20.5,
                    "max_message_bytes": 1234,
                    "version": 1,
                }
                await nothing_comes(v1)


async def test_server_that_does_not_ping_says_so_in_both_encodings(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app, trioroom.Settings(ping_interval=math.inf)) as server:
        async with open_v1_peer(server, subprotocol=subprotocol) as v1:
            assert v1.hello["ping_interval"] is None


async def test_each_request_gets_the_answer_of_the_reference(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        assert await v1.request("join", room="board/a") == {"type": "ok", "id": 1, "room": "board/a"}
        assert await v1.request("auth", token="t0k3n") == {"type": "ok", "id": 2}
        position = {"epoch": "e", "offset": 41}
        joined = await v1.request("join", room="board/b", position=position)
        assert joined == {"type": "ok", "id": 3, "room": "board/b", "state": "t0k3n", "recovered": False}
        assert await v1.request("publish", room="board/a", data="x") == {"type": "ok", "id": 4, "room": "board/a"}
        assert await v1.request("leave", room="board/a") == {"type": "ok", "id": 5, "room": "board/a"}
        await nothing_comes(v1)


async def test_ids_are_numbers_or_strings_and_unknown_fields_are_ignored(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        for id in (0, -1, 2**63 - 1, "", "ä", "1"):
            await v1.send({"id": id, "type": "auth", "token": "", "colour": {"nested": [1]}})
            assert await v1.receive() == {"type": "ok", "id": id}


async def test_ping_is_answered_in_its_turn_and_needs_no_room(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        assert await v1.request("ping") == {"type": "ok", "id": 1}
        await v1.join("board/a")
        await v1.send({"type": "publish", "id": 3, "room": "board/a", "data": "slow"}, {"type": "ping", "id": "p"})
        assert await v1.receive() == {"type": "ok", "id": 3, "room": "board/a"}
        assert await v1.receive() == {"type": "ok", "id": "p"}
        await nothing_comes(v1)


async def test_publish_without_an_id_is_answered_by_nothing_but_an_error(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        await v1.send({"type": "publish", "room": "board/a", "data": "x"})
        await v1.send({"type": "publish", "room": "board/a", "data": "x", "id": None})
        await nothing_comes(v1)
        await v1.send({"type": "publish", "room": "board/b", "data": "x"})
        refused = await v1.receive()
        assert (refused["id"], refused["code"]) == (None, "not_joined")


async def test_publish_is_answered_once_on_message_has_returned(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        start = trio.current_time()
        await v1.request("publish", room="board/a", data="slow")
        assert trio.current_time() - start == pytest.approx(1)


class Lingering(Board):
    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await trio.sleep(0.5)
        await super().on_leave(member, reason)


async def test_leave_is_answered_after_on_leave(subprotocol: str, autojump_clock: MockClock) -> None:
    app = trioroom.App()
    app.route("board/{name}", Lingering)
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        async with open_v1_peer(server, subprotocol=subprotocol) as other:
            await other.join("board/a")
            await v1.join("board/a")
            began = trio.current_time()
            await v1.request("leave", room="board/a")
            assert trio.current_time() - began >= 0.5
            assert await other.receive() == {"type": "message", "room": "board/a", "data": {"left": "left"}}
            await nothing_comes(v1)


async def test_requests_of_a_connection_are_served_in_order_alone_or_in_an_array(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    requests = [
        {"type": "join", "id": 1, "room": "board/a"},
        {"type": "publish", "id": 2, "room": "board/a", "data": "slow"},
        {"type": "leave", "id": 3, "room": "board/a"},
        {"type": "publish", "id": 4, "room": "board/a", "data": "x"},
    ]
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        for frames in ([[request] for request in requests], [requests], [requests[:3], requests[3:]]):
            for frame in frames:
                await v1.send(*frame)
            answers = [await v1.receive() for _ in requests]
            assert [answer["id"] for answer in answers] == [1, 2, 3, 4]
            assert [answer["type"] for answer in answers] == ["ok", "ok", "ok", "error"]


async def test_arrays_may_be_empty_long_or_of_one(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    encode = msgspec.json.encode if subprotocol == JSON else msgspec.msgpack.encode
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        for count in (0, 1, 15, 16, 300):  # MessagePack has another head from 16 on
            payload = encode([{"type": "auth", "id": id, "token": ""} for id in range(count)])
            await v1.peer.send(payload.decode() if subprotocol == JSON else payload)
            assert [await v1.receive() for _ in range(count)] == [{"type": "ok", "id": id} for id in range(count)]
        await nothing_comes(v1)


async def test_pushes_are_the_same_bytes_for_all_members(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as publisher:
        async with open_v1_peer(server, subprotocol=subprotocol) as one:
            async with open_v1_peer(server, subprotocol=subprotocol) as two:
                for v1 in (publisher, one, two):
                    await v1.join("board/a")
                await publisher.send({"type": "publish", "room": "board/a", "data": {"b": 1, "a": [2]}})
                pushes = {await v1.peer.receive() for v1 in (one, two)}
                assert len(pushes) == 1


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["", "text ä", 0, -1.5, True, None, [], [1, [2]], {}, {"a": {"b": None}}, b"", b"\0\xff" * 100]
)
async def test_data_crosses_from_either_encoding_to_either(data: object, autojump_clock: MockClock) -> None:
    def wire(codec: str) -> dict[str, object]:
        if isinstance(data, bytes) and codec == JSON:
            return {"data": msgspec.json.decode(msgspec.json.encode(data)), "encoding": "base64"}
        return {"data": data}

    app = trioroom.App()
    app.route("board/{name}", Board)
    async with open_test_server(app) as server, open_peer(server, "/board/a") as plain:
        async with open_v1_peer(server, subprotocol=JSON) as json:
            async with open_v1_peer(server, subprotocol=MSGPACK) as msgpack:
                await json.join("board/a")
                await msgpack.join("board/a")
                for sender, receiver, codec in ((json, msgpack, MSGPACK), (msgpack, json, JSON)):
                    own = MSGPACK if codec == JSON else JSON
                    assert (await sender.request("publish", room="board/a", **wire(own)))["type"] == "ok"
                    push = {"type": "message", "room": "board/a", "from": sender.id, **wire(codec)}
                    assert await receiver.receive() == push
                    verbatim = data if isinstance(data, str | bytes) else msgspec.json.encode(data).decode()
                    assert await plain.receive() == verbatim
