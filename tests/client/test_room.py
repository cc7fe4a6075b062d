"""What an application asks of a room: publications, calls, pages, over lost connections too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

import trioroom
from tests.client.conftest import Codec, News, Peer, Script, make_app, open_app, open_script
from trioroom.room import KeptMessage, PresentUser


async def test_members_talk_in_any_value(codec: Codec, autojump_clock: MockClock) -> None:
    values: list[object] = ["text ä", "", 0, -1.5, True, None, [1, [2, "x"]], {"a": {"b": None}}, b"\x00\xff", b""]
    async with open_app() as line, line.open_client(codec=codec) as one, line.open_client() as two:
        async with one.join("chat/a") as room, two.join("chat/a") as other:
            for value in values:
                await room.publish(value)
                message = await anext(other)
                assert (message.data, message.position) == (value, None)
                assert message.sender is not None
            await room.publish("unconfirmed", confirm=False)
            assert (await anext(other)).data == "unconfirmed"


async def test_data_that_cannot_be_sent_is_the_callers_error(codec: Codec, autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client(codec=codec) as client, client.join("chat/a") as room:
        for use in (room.publish, room.call):
            for wrong in (object(), {1: object()}):
                with pytest.raises(TypeError):
                    await use(wrong)
            with pytest.raises(trioroom.LocalProtocolError, match="max_message_bytes=65536 of the server"):
                await use("x" * 70_000)
        with pytest.raises(trioroom.RequestRefused) as refused:
            await room.publish("x", publication_id="x" * 200)
        assert refused.value.code == "bad_envelope"
        await room.publish("the connection goes on")
        assert line.dials == 1


async def test_calls_are_answered_side_by_side_and_cancelled_at_the_server(autojump_clock: MockClock) -> None:
    async with open_app(max_calls_per_connection=1) as line, line.open_client() as client:
        async with client.join("chat/a") as room:
            with pytest.raises(trioroom.RequestRefused) as late:
                await room.call("slow", timeout=0.5)
            assert (late.value.code, late.value.retry) == ("timeout", True)
            with trio.move_on_after(1):
                await room.call("slow")
            assert await room.call("quick") == ["quick", None], "the one place is free again"
        async with client.join("lounge/a") as silent:
            with pytest.raises(trioroom.RequestRefused, match="answers no calls"):
                await silent.call("?")


async def test_call_is_sent_once(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client, client.join("chat/a") as room:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(trioroom.Disconnected) as lost:
                    await room.call("slow")
                assert lost.value.retry

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            line.cut()
        assert await room.call("again") == ["again", None]


async def test_fire_and_forget_needs_a_connection(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client, client.join("chat/a") as room:
        line.cut()
        await wait_all_tasks_blocked()
        with pytest.raises(trioroom.Disconnected):
            await room.publish("x", confirm=False)


async def test_publication_that_is_sent_again_counts_once(autojump_clock: MockClock) -> None:
    published = trio.Event()

    class Silent(News):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await super().on_message(member, message)
            if not published.is_set():
                published.set()
                await trio.sleep_forever()  # so the first one goes out and is not answered

    app = trioroom.App()
    app.route("news/{name}", Silent)
    async with open_app(app) as line, line.open_client() as client, client.join("news/a") as room:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.publish, "once")
            await published.wait()
            line.cut()
        await room.publish("and then this")
        page = await room.history()
        assert [message.data for message in page.messages] == ["once", "and then this"]


async def test_publication_is_retried_while_the_server_says_so(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        line.nursery.start_soon(answer_publications, script, 3)
        async with client.join("chat/a") as room:
            began = trio.current_time()
            await room.publish("x")
            assert 6.0 <= trio.current_time() - began <= 7.0


async def answer_publications(script: Script, refusals: int) -> None:
    """Each is refused so often, to come again in 2 s, under the same publication id and another request id."""
    peer = await script.accept()
    await peer.answer_join("chat/a")
    heard = [await refuse(peer, "unavailable", retry=True, after=2.0) for _ in range(refusals)]
    last = await peer.hear()
    assert len({each["publication_id"] for each in [*heard, last]}) == 1
    assert len({each["id"] for each in [*heard, last]}) == refusals + 1
    await peer.say({"type": "ok", "id": last["id"]})


async def refuse(peer: Peer, code: str, *, retry: bool = False, after: float | None = None) -> dict[str, object]:
    heard: dict[str, object] = await peer.hear()
    await peer.say({"type": "error", "id": heard["id"], "code": code, "message": "no", "retry": retry, "after": after})
    return heard


async def test_publication_is_given_up_as_unconfirmed_after_two_minutes(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        entering = client.join("chat/a")

        async def serve() -> None:
            while True:
                with suppress(ConnectionClosed):  # in the end
                    peer = await script.accept()
                    await peer.answer_join("chat/a")
                    await peer.hear()
                    await trio.sleep(50)
                    await peer.cut()

        line.nursery.start_soon(serve)
        async with entering as room:
            await trio.sleep(1)
            began = trio.current_time()
            with pytest.raises(trioroom.Unconfirmed) as unconfirmed:
                await room.publish("x")
            assert trio.current_time() - began == pytest.approx(120.0, abs=0.1)
            assert not unconfirmed.value.retry


async def test_publication_that_was_not_sent_waits_without_a_limit(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client() as client, client.join("news/a") as room:
        server, line.server = line.server, None
        line.cut()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.publish, "late")
            await trio.sleep(300)
            line.server = server
        assert [message.data for message in (await room.history()).messages] == ["late"]


async def test_publications_beyond_max_pending_await_their_turn(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client(max_pending=2) as client:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                peer = await script.accept()
                await peer.answer_join("chat/a")
                waiting = [await peer.hear(), await peer.hear()]
                with trio.move_on_after(10) as silence:
                    await peer.hear()
                assert silence.cancelled_caught
                for _ in range(3):
                    await peer.say({"type": "ok", "id": waiting.pop(0)["id"]})
                    if len(waiting) == 1:
                        waiting.append(await peer.hear())

            line.nursery.start_soon(serve)
            async with client.join("chat/a") as room:
                async with trio.open_nursery() as publishing:
                    for number in range(3):
                        publishing.start_soon(room.publish, number)
                nursery.cancel_scope.cancel()


async def test_history_and_who_are_pages_and_asked_again(codec: Codec, autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann", codec) as client:
        async with client.join("news/a") as room:
            for data in (b"\x00", "two", 3):
                await room.publish(data)
            latest = await room.history(2)
            assert [message.data for message in latest.messages] == ["two", 3]
            assert latest.more
            older = await room.history(before=trioroom.Position(latest.position.epoch, 2))
            assert [(message.offset, message.data) for message in older.messages] == [(1, b"\x00")]
            assert isinstance(older.messages[0], KeptMessage)
            line.cut()
            newer = await room.history(after=trioroom.Position(latest.position.epoch, 2))
            assert [message.data for message in newer.messages] == [3]
            with pytest.raises(trioroom.RequestRefused, match="position_lost"):
                await room.history(after=trioroom.Position("another", 2))
        async with client.join("lounge/a") as lounge:
            page = await lounge.who()
            assert page.members == (PresentUser("ann", {"name": "ann"}),)
            assert (page.count, page.more) == (1, False)


async def test_left_room_is_closed_and_can_be_joined_again(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client:
        async with client.join("chat/a") as room:
            pass
        uses: list[Callable[[], Awaitable[object]]] = [
            room.__anext__, room.events().__anext__, lambda: room.publish("x"), lambda: room.call("x"), room.history,
            room.who,
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(trio.ClosedResourceError):
                await use()
        async with client.join("chat/a") as again:
            await again.publish("x")
        assert isinstance(line.server, trioroom.Server)
        assert line.server.statistics().rooms == 0


async def test_public_calls_are_checkpoints(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("news/a") as room:
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: room.publish(1), lambda: room.publish(1, confirm=False), lambda: room.call(1), room.history,
            client.wait_open, lambda: client.authenticate("bob"), client.states().__anext__,
        ]  # fmt: skip
        for use in uses:
            with assert_checkpoints():
                await use()
