"""Errors of protocol v1 in both encodings, but those of calls; and what closes the connection."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

import trioroom
from trioroom._wire.frames import Opcode
from trioroom.testing import Peer, open_test_server, open_v1_peer

JSON, MSGPACK = "trioroom.v1.json", "trioroom.v1.msgpack"


class Board(trioroom.Room):
    """Lets most in, and handles most messages."""

    async def on_open(self) -> None:
        if self.name == "board/broken":
            raise ValueError("on_open is broken")

    async def authorize(self, member: trioroom.Member) -> None:
        if self.name == "board/closed":
            raise trioroom.JoinRefused("members only")

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "raise":
            raise ValueError("on_message is broken")
        await super().on_message(member, message)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await self.publish(reason)


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("board/{name}", Board)
    return app


def error(answer: dict[str, object]) -> tuple[object, object, object]:
    """Id, code and retry of an error, whose other fields are looked at here."""
    assert answer.keys() == {"type", "id", "code", "message", "retry", "after"}
    assert answer["type"] == "error"
    assert answer["after"] is None
    assert answer["message"]
    return answer["id"], answer["code"], answer["retry"]


async def closed_with(peer: Peer) -> int:
    with pytest.raises(trioroom.ConnectionClosed) as closed:
        await peer.receive()
    return closed.value.code


@pytest.mark.parametrize(
    ("room", "code", "retry", "message"),
    [
        ("elsewhere", "unknown_room", False, "no room is called 'elsewhere'; check its spelling"),
        ("", "unknown_room", False, "no room is called ''; check its spelling"),
        ("/board/a", "unknown_room", False, "no room is called '/board/a'; check its spelling"),
        (
            "board/" + "ä" * 125,
            "unknown_room",
            False,
            "name of 256 bytes exceeds max_room_name_bytes=255; choose a shorter one",
        ),
        (
            "board/a\nb",
            "unknown_room",
            False,
            "name 'board/a\\nb' has a character that does not print; leave it out",
        ),
        ("board/closed", "denied", False, "members only"),
        ("board/broken", "failed", True, "room 'board/broken' failed to open; try again later"),
    ],
)
async def test_join_that_fails_is_told_why(
    room: str,
    code: str,
    retry: bool,
    message: str,
    app: trioroom.App,
    subprotocol: str,
    autojump_clock: MockClock,
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        for id in (1, 2):
            answer = await v1.request("join", room=room)
            assert error(answer) == (id, code, retry)
            assert answer["message"] == message
        await v1.join("board/" + "ä" * 124)  # the longest by default


async def test_room_is_joined_once_at_a_time(app: trioroom.App, subprotocol: str, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        assert await v1.request("join", room="board/a") == {"type": "ok", "id": 2, "room": "board/a"}
        await v1.request("leave", room="board/a")
        await v1.join("board/a")


async def test_rooms_of_a_connection_are_limited(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_rooms_per_connection=3)
    async with open_test_server(app, settings) as server:
        async with open_v1_peer(server, subprotocol=subprotocol) as v1:
            for name in "abc":
                await v1.join(f"board/{name}")
            answer = await v1.request("join", room="board/d")
            assert error(answer) == (4, "too_many_rooms", False)
            assert answer["message"] == "max_rooms_per_connection=3 reached; leave one first"
            assert (await v1.request("join", room="board/a"))["type"] == "ok"  # it is in that one
            await v1.request("leave", room="board/b")
            await v1.join("board/d")


@pytest.mark.parametrize("request_type", ["leave", "publish", "call"])
async def test_room_that_is_not_joined_is_no_place_for_requests(
    request_type: str, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        answer = await v1.request(request_type, room="board/b", data="x")
        assert error(answer) == (2, "not_joined", False)
        assert answer["message"] == "you are not in 'board/b'; join it first"


@pytest.mark.parametrize(
    ("envelope", "id", "code"),
    [
        ({"type": "join", "id": 7}, 7, "bad_envelope"),
        ({"type": "join", "id": 7, "room": 1}, 7, "bad_envelope"),
        ({"type": "join", "room": "board/a"}, None, "bad_envelope"),
        ({"type": "join", "id": 1.5, "room": "board/a"}, None, "bad_envelope"),
        ({"type": "join", "id": None, "room": "board/a"}, None, "bad_envelope"),
        ({"type": "join", "id": 7, "room": "board/a", "position": "41"}, 7, "bad_envelope"),
        ({"type": "publish", "id": "p", "room": "board/a"}, "p", "bad_envelope"),
        ({"type": "call", "id": "c", "room": "board/a", "data": 1, "timeout": "soon"}, "c", "bad_envelope"),
        ({"type": "cancel"}, None, "bad_envelope"),
        ({"type": "auth", "id": 7, "token": None}, 7, "bad_envelope"),
        ({"type": "hello", "id": 7}, 7, "unknown_type"),
        ({"type": "", "id": 7}, 7, "unknown_type"),
        ({"id": 7}, 7, "unknown_type"),
        ({}, None, "unknown_type"),
        ({"type": ["join"], "id": 7}, None, "bad_envelope"),
        (7, None, "bad_envelope"),
        ("join", None, "bad_envelope"),
        (None, None, "bad_envelope"),
    ],
)
async def test_envelope_that_is_wrong_is_answered_alone_or_among_others(
    envelope: object, id: object, code: str, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    auth = {"type": "auth", "id": 0, "token": ""}
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.send(envelope)  # type: ignore[arg-type]  # that is the point
        assert error(await v1.receive()) == (id, code, False)
        await v1.send(auth, envelope, auth)  # type: ignore[arg-type]  # as above
        before, wrong, after = [await v1.receive() for _ in range(3)]
        assert before == after == {"type": "ok", "id": 0}
        assert error(wrong) == (id, code, False)


@pytest.mark.parametrize(
    ("subprotocol", "opcode", "payload", "code"),
    [
        (JSON, Opcode.TEXT, b"{", 4000),
        (JSON, Opcode.TEXT, b"", 4000),
        (JSON, Opcode.TEXT, b'[{"type":"auth","id":1,"token":""}', 4000),
        (JSON, Opcode.TEXT, b'{"type":"auth","id":1,"token":""} x', 4000),
        (JSON, Opcode.BINARY, b'{"type":"auth","id":1,"token":""}', 1003),
        (MSGPACK, Opcode.BINARY, b"", 4000),
        (MSGPACK, Opcode.BINARY, b"\xc1", 4000),
        (MSGPACK, Opcode.BINARY, b"\x92\x80", 4000),
        (MSGPACK, Opcode.TEXT, b"\x80", 1007),
        (MSGPACK, Opcode.TEXT, b"{}", 1003),
    ],
)
async def test_what_cannot_be_answered_closes(
    subprotocol: str, opcode: Opcode, payload: bytes, code: int, app: trioroom.App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.peer.send_frame(opcode, payload)
        assert await closed_with(v1.peer) == code


async def test_after_a_failure_the_rest_of_the_array_is_not_served(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as other:
        await other.join("board/a")
        async with open_v1_peer(server, subprotocol=subprotocol) as v1:
            await v1.join("board/a")
            publish = {"type": "publish", "room": "board/a"}
            await v1.send({**publish, "data": "raise", "id": 1}, {**publish, "data": "not published", "id": 2})
            assert await closed_with(v1.peer) == 1011
        assert (await other.receive())["data"] == "on_message failed; the server's log tells more"


@pytest.mark.parametrize("wrong", ["A", "AA=", "AA==\n", "A A=", "A-_A", 1, None, ["AAEC"]])
async def test_data_that_is_not_the_base64_it_claims_to_be(
    wrong: object, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        answer = await v1.request("publish", room="board/a", data=wrong, encoding="base64")
        assert error(answer) == (2, "bad_envelope", False)
        await v1.send({"type": "publish", "room": "board/a", "data": wrong, "encoding": "base64"})
        assert error(await v1.receive()) == (None, "bad_envelope", False)


async def test_other_encodings_than_base64_are_none(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("board/a")
        answer = await v1.request("publish", room="board/a", data="00ff", encoding="hex")
        assert error(answer) == (2, "bad_envelope", False)
