"""Who was live is told of each interruption, and who was not is not."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.backplane.redis.scenes import Record
from trioroom.backplane.base import Lost
from trioroom.backplane.channel import Channel
from trioroom.errors import BackplaneError

GAP = Lost("backplane")


def test_all_listeners_hear_what_comes_until_they_are_removed() -> None:
    channel, one, two = Channel(b"name"), Record(), Record()
    channel.add(one)
    channel.add(two)
    assert len(channel) == 2
    channel.confirm()
    channel.deliver(b"1")
    channel.remove(one)
    channel.deliver(b"2")
    assert (one.heard, two.heard) == ([b"1"], [b"1", b"2"])
    assert len(channel) == 1


def test_who_was_live_is_told_of_the_gap_when_the_channel_is_live_again_and_who_enters_is_not() -> None:
    channel, old, new, gone = Channel(b"name"), Record(), Record(), Record()
    channel.add(old)
    assert not channel.interrupted  # nobody was live yet
    channel.confirm()
    channel.add(gone)
    channel.interrupt()
    assert channel.interrupted
    channel.add(new)
    assert old.heard == []  # told when it can be mended, not before
    channel.remove(gone)
    channel.confirm()
    assert (old.heard, new.heard, gone.heard) == ([GAP], [], [])
    channel.interrupt()
    channel.confirm()
    assert (old.heard, new.heard) == ([GAP, GAP], [GAP])


def test_channel_in_which_those_who_were_live_have_left_is_not_interrupted() -> None:
    channel, old, new = Channel(b"name"), Record(), Record()
    channel.add(old)
    channel.confirm()
    channel.interrupt()
    channel.add(new)
    channel.remove(old)
    assert not channel.interrupted
    channel.confirm()
    assert new.heard == []


def test_who_enters_a_live_channel_is_told_of_a_later_gap() -> None:
    channel, listener = Channel(b"name"), Record()
    channel.confirm()
    channel.add(listener)
    channel.interrupt()
    assert channel.interrupted
    channel.confirm()
    assert listener.heard == [GAP]


async def test_wait_live_ends_with_the_confirmation_and_is_a_checkpoint() -> None:
    channel = Channel(b"name")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.wait_live)
        nursery.start_soon(channel.wait_live)
        await wait_all_tasks_blocked()
        channel.interrupt()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        channel.confirm()
    with assert_checkpoints():
        await channel.wait_live()


async def test_confirmation_that_is_gone_before_anybody_woke_up_does_not_count() -> None:
    channel = Channel(b"name")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.wait_live)
        await wait_all_tasks_blocked()
        channel.confirm()
        channel.interrupt()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        channel.confirm()


async def test_refusal_is_raised_by_all_who_wait_each_with_an_error_of_its_own() -> None:
    channel = Channel(b"name")
    raised: list[BackplaneError] = []

    async def wait() -> None:
        with pytest.raises(BackplaneError, match="no right") as refused:
            await channel.wait_live()
        raised.append(refused.value)

    refusal = BackplaneError("no right")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        channel.refuse(refusal)
    assert raised[0] is not raised[1]
    assert [exc.__cause__ for exc in raised] == [refusal, refusal]


async def test_who_comes_before_the_refused_have_left_is_refused_too_and_does_not_wait_in_vain() -> None:
    channel = Channel(b"name")
    channel.refuse(BackplaneError("no right"))
    with trio.fail_after(1), pytest.raises(BackplaneError, match="no right"):
        await channel.wait_live()
    channel.confirm()  # the broker has changed its mind
    channel.interrupt()
    assert channel.refusal is None
    with trio.move_on_after(0) as waiting:
        await channel.wait_live()
    assert waiting.cancelled_caught
