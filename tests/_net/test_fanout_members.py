"""Members that come and go during a pass of the fan-out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests._net.test_fanout import bytes_of, numbers, open_stage, publication, publications

if TYPE_CHECKING:
    from tests.conftest import Recorder

MANY = 1_200  # members; a pass lets others run after some hundred


async def test_plain_member_that_is_put_out_during_a_pass_gets_nothing_more(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        recorders = await stage.watch(MANY)
        stayed = []

        def leave() -> None:
            for member in stage.met:
                if stage.recorders[member.id].sends:
                    stayed.append(stage.recorders[member.id])
                else:
                    member.leave("in between")

        await stage.feed_and_act_during_the_pass(publication("x"), recorders, leave)
        left = [recorder for recorder in recorders if recorder not in stayed]
        assert all(recorder.take() == ["x"] for recorder in stayed)
        assert all(recorder.take() == [b"\x03\xe8in between"] for recorder in left), "more than their close frames"


@pytest.mark.untraced
async def test_v1_member_that_is_put_out_during_a_pass_gets_nothing_after_it_was_told(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        recorders = await stage.watch_v1(2 * MANY)
        put_out = []

        def leave() -> None:
            for member in stage.met:
                if not stage.recorders[member.id].sends:
                    put_out.append(stage.recorders[member.id])
                    member.leave("in between")

        await stage.feed_and_act_during_the_pass(publication("x"), recorders, leave)
        told = [[msgspec.json.decode(bytes_of(m))["type"] for m in recorder.take()] for recorder in put_out]
        assert ["kicked"] in told
        assert all(types in (["kicked"], ["message", "kicked"]) for types in told)


@pytest.mark.untraced
async def test_joiner_that_gets_in_during_a_pass_has_its_state_first_and_each_message_once(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        recorders = await stage.watch(MANY)
        stage.let_in = trio.Event()
        (joiner,) = await stage.watch()
        await stage.feed(publication("held"))
        await stage.feed_and_act_during_the_pass(publication("during"), recorders, stage.let_in.set)
        await stage.feed(publication("after"))
        assert joiner.take() == ["state", "held", "during", "after"]
        assert all(recorder.take() == ["held", "during", "after"] for recorder in recorders)


@pytest.mark.untraced
async def test_who_comes_during_a_pass_gets_what_follows_it(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        recorders = await stage.watch(MANY)
        (newcomer,) = await stage.connect_v1()

        def come() -> None:
            newcomer.say('{"type":"join","id":1,"room":"room/a"}')

        await stage.feed_and_act_during_the_pass(publication("during"), recorders, come)
        await stage.feed(publication("after"))
        answer, push = [msgspec.json.decode(bytes_of(message)) for message in newcomer.take()]
        assert (answer["type"], push["data"]) == ("ok", "after")


async def test_what_is_held_for_a_joiner_is_bounded(make_recorder: type[Recorder], autojump_clock: MockClock) -> None:
    async with open_stage(make_recorder, max_outbox_messages=10) as stage:
        (member,) = await stage.watch()
        stage.let_in = trio.Event()
        (joiner,) = await stage.watch()
        await stage.feed(*publications(numbers(10)))
        assert joiner.sends == []
        await stage.feed(publication("one too many"))
        (close,) = joiner.take()
        assert bytes_of(close)[:15] == (4108).to_bytes(2, "big") + b"slow consumer"
        stage.let_in.set()
        await stage.feed(publication("after"))
        assert joiner.sends == []
        assert member.take() == [*numbers(10), "one too many", "after"]


async def test_pass_over_a_large_room_lets_other_rooms_go_on(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        large = await stage.watch(MANY)
        (small,) = await stage.watch(path="/room/b")

        stage.backplane.feed("room/a", publication("x"))
        stage.backplane.feed("room/b", publication("y"))
        while not small.sends:
            await trio.lowlevel.checkpoint()
        assert not all(recorder.sends for recorder in large), "the small room had to wait"
