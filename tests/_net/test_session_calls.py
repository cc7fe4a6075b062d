"""Calls of protocol v1: they run beside everything else, and each gets exactly one answer."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom.testing import V1Peer, open_test_server, open_v1_peer


class Oracle(trioroom.Room):
    """Answers a number after so many seconds, anything else at once."""

    log: list[str]

    async def on_open(self) -> None:
        type(self).log = []

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        member.leave("asked to")

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        self.log.append(f"{message.data!r} begins")
        try:
            if message.data == "raise":
                raise ValueError("on_call is broken")
            if isinstance(message.data, int):
                await trio.sleep(message.data)
            elif message.data == "stubborn":
                await self.stay_for_a_second()
        finally:
            self.log.append(f"{message.data!r} ends")
        return message.data

    async def stay_for_a_second(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.log.append("on_leave")


class Mute(trioroom.Room):
    """Has no on_call."""


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("oracle", Oracle)
    app.route("mute", Mute)
    return app


def error(answer: dict[str, object]) -> tuple[object, object, object]:
    """Id, code and retry of an error."""
    assert answer["type"] == "error", answer
    return answer["id"], answer["code"], answer["retry"]


async def call(v1: V1Peer, id: int | str, data: object, **fields: object) -> None:
    """Start a call in the oracle."""
    await v1.send({"type": "call", "id": id, "room": "oracle", "data": data, **fields})


@pytest.mark.parametrize("data", ["text", 0, None, {"a": [1.5, None]}, [], False])
async def test_call_is_answered_with_what_on_call_returns(
    data: object, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        answer = {"type": "ok", "id": 2, "room": "oracle", "data": data}
        if data is None:
            del answer["data"]  # fields that are null are left out
        assert await v1.request("call", room="oracle", data=data) == answer


async def test_binary_data_goes_as_base64_in_json_and_comes_back_bare(
    app: trioroom.App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        await v1.join("oracle")
        answer = await v1.request("call", room="oracle", data="AAEC/w==", encoding="base64")
        assert (answer["data"], Oracle.log[0]) == ("AAEC/w==", r"b'\x00\x01\x02\xff' begins")
        refused = await v1.request("call", room="oracle", data="no base64", encoding="base64")
        assert error(refused) == (3, "bad_envelope", False)
    async with open_test_server(app) as server:
        async with open_v1_peer(server, subprotocol="trioroom.v1.msgpack") as v1:
            await v1.join("oracle")
            assert (await v1.request("call", room="oracle", data=b"\0\xff"))["data"] == b"\0\xff"


async def test_running_call_holds_up_nothing(app: trioroom.App, subprotocol: str, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        for seconds in (3, 1, 2):
            await call(v1, f"c{seconds}", seconds)
        await v1.request("join", room="mute")
        await v1.request("leave", room="mute")
        quick = await v1.request("call", room="oracle", data="quick")
        assert quick == {"type": "ok", "id": 4, "room": "oracle", "data": "quick"}
        assert [(await v1.receive())["id"] for _ in range(3)] == ["c1", "c2", "c3"]


@pytest.mark.parametrize(("timeout", "in_time"), [(2, True), (0.5, False), (0, False), (-1, False), (None, True)])
async def test_timeout_cancels_the_handler_and_says_so(
    timeout: float | None, in_time: bool, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        start = trio.current_time()
        answer = await v1.request("call", room="oracle", data=1, timeout=timeout)
        took = trio.current_time() - start
        if in_time:
            assert answer["data"] == 1
            assert took == pytest.approx(1)
        else:
            assert error(answer) == (2, "timeout", True)
            assert took == pytest.approx(max(0, timeout or 0))
        assert Oracle.log == ["1 begins", "1 ends"]


async def test_cancel_ends_the_handler_at_once_and_the_call_is_answered_once(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        await call(v1, "a", 100, timeout=50)
        await call(v1, "b", 2)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        for _ in range(3):  # once is enough
            await v1.send({"type": "cancel", "id": "a"})
        assert error(await v1.receive()) == ("a", "cancelled", False)
        assert trio.current_time() == start
        assert Oracle.log == ["100 begins", "2 begins", "100 ends"]
        assert (await v1.receive())["id"] == "b"
        await v1.send({"type": "cancel", "id": "b"}, {"type": "cancel", "id": "never was"})
        assert (await v1.request("auth", token=""))["type"] == "ok"


async def test_handler_that_is_done_although_it_was_cancelled_is_answered(
    app: trioroom.App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        await v1.join("oracle")
        await call(v1, "s", "stubborn", timeout=0.5)
        await wait_all_tasks_blocked()
        await v1.send({"type": "cancel", "id": "s"})
        assert await v1.receive() == {"type": "ok", "id": "s", "room": "oracle", "data": "stubborn"}


@pytest.mark.parametrize("how", ["leave", "put out"])
async def test_calls_of_a_member_that_goes_are_cancelled_and_answered_before_it_has_gone(
    how: str, app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        for seconds in (100, 200):
            await call(v1, seconds, seconds)
        await wait_all_tasks_blocked()
        last: dict[str, object]
        if how == "leave":
            await v1.send({"type": "leave", "id": 1, "room": "oracle"})
            last = {"type": "ok", "id": 1, "room": "oracle"}
        else:
            await v1.send({"type": "publish", "room": "oracle", "data": "x"})
            last = {"type": "kicked", "room": "oracle", "code": 4002, "reason": "asked to"}
        answers = sorted([await v1.receive() for _ in range(2)], key=lambda answer: int(answer["id"]))
        assert [error(answer) for answer in answers] == [(100, "cancelled", False), (200, "cancelled", False)]
        assert await v1.receive() == last
        assert Oracle.log[-1] == "on_leave"


async def test_id_is_taken_while_its_call_runs(app: trioroom.App, subprotocol: str, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        await call(v1, "same", 1)
        await call(v1, "same", 2)
        assert error(await v1.receive()) == ("same", "duplicate_id", False)
        assert (await v1.receive())["data"] == 1
        await call(v1, "same", 3)
        assert (await v1.receive())["data"] == 3
        assert "2 begins" not in Oracle.log


async def test_calls_of_a_connection_are_limited(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_calls_per_connection=2)
    async with open_test_server(app, settings) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        for id in (11, 12, 13):
            await call(v1, id, 1)
        refused = await v1.receive()
        assert error(refused) == (13, "too_many_calls", True)
        assert refused["message"] == "max_calls_per_connection=2 run; await their answers"
        assert {(await v1.receive())["id"] for _ in range(2)} == {11, 12}
        await call(v1, 13, 1)
        assert (await v1.receive())["data"] == 1


async def test_room_without_on_call_answers_no_calls(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("mute")
        refused = await v1.request("call", room="mute", data=1)
        assert error(refused) == (2, "unsupported", False)
        assert refused["message"] == "room 'mute' answers no calls"


async def test_call_that_raises_is_answered_before_the_connection_closes(
    app: trioroom.App, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_v1_peer(server, subprotocol=subprotocol) as v1:
        await v1.join("oracle")
        await call(v1, "bad", "raise")
        assert error(await v1.receive()) == ("bad", "failed", False)
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await v1.receive()
        assert (closed.value.code, closed.value.reason) == (1011, "on_call failed; the server's log tells more")


async def test_calls_end_with_the_connection(app: trioroom.App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as v1:
            await v1.join("oracle")
            await call(v1, "a", 100)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert Oracle.log == ["100 begins", "100 ends", "on_leave"]
