"""What the members of two servers see when the link between these fails: minutes of it, on the virtual clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.conftest import app_of
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import Fault, FaultyBackplane, V1Peer, open_test_server, open_v1_peer
from trioroom.testing.v1_peer import Envelope

ROOM = "room/a"


class Plain(trioroom.Room):
    presence = False


class Kept(trioroom.Room):
    history = trioroom.History(size=1_000, ttl=300)


class Attended(trioroom.Room):
    presence = trioroom.Presence(grace=2, interval=1)


@attrs.frozen
class Pair:
    """Two servers, and a member of the room at each."""

    here: FaultyBackplane
    apps: tuple[trioroom.App, trioroom.App]
    servers: tuple[trioroom.Server, trioroom.Server]
    ann: V1Peer
    bob: V1Peer


@asynccontextmanager
async def open_pair(room_class: type[trioroom.Room], here: FaultyBackplane | None = None) -> AsyncIterator[Pair]:
    here = here or FaultyBackplane()
    apps = app_of(room_class), app_of(room_class)
    async with (
        open_test_server(apps[0], backplane=here) as one,
        open_test_server(apps[1], backplane=here.another_node()) as two,
        open_v1_peer(one) as ann,
        open_v1_peer(two) as bob,
    ):
        for peer in (ann, bob):
            await peer.join(ROOM)
        yield Pair(here, apps, (one, two), ann, bob)


async def pushes(peer: V1Peer, seconds: float = 5.0) -> list[Envelope]:
    """What it is told from now on."""
    told: list[Envelope] = []
    with trio.move_on_after(seconds):
        while True:
            told.append(await peer.receive())
    return told


async def heard(peer: V1Peer, seconds: float = 5.0) -> list[object]:
    """The messages among that; other pushes by their type."""
    return [push["data"] if push["type"] == "message" else push["type"] for push in await pushes(peer, seconds)]


async def test_partition_ends_in_a_gap_where_there_is_no_history(autojump_clock: MockClock) -> None:
    async with open_pair(Plain) as pair:
        await pair.apps[1].publish(ROOM, "before")
        assert (await heard(pair.ann), await heard(pair.bob)) == (["before"], ["before"])
        with pair.here.partitioned():
            await pair.apps[1].publish(ROOM, "meanwhile")
            with pytest.raises(BackplaneUnavailable):
                await pair.apps[0].publish(ROOM, "from here")
            assert (await heard(pair.ann, 60), await heard(pair.bob)) == ([], ["meanwhile"])
        await pair.apps[1].publish(ROOM, "after")
        assert (await heard(pair.ann), await heard(pair.bob)) == (["gap", "after"], ["after"])


async def test_partition_is_healed_from_the_history(autojump_clock: MockClock) -> None:
    async with open_pair(Kept) as pair:
        with pair.here.partitioned():
            for number in range(10):
                await pair.apps[1].publish(ROOM, number)
            assert await heard(pair.ann, 60) == []
        await pair.apps[1].publish(ROOM, "after")
        assert await heard(pair.ann) == [*range(10), "after"]


async def test_partition_that_outlasts_the_history_ends_in_a_gap(autojump_clock: MockClock) -> None:
    async with open_pair(Kept) as pair:
        with pair.here.partitioned():
            await pair.apps[1].publish(ROOM, "too old")
            await trio.sleep(301)
            await pair.apps[1].publish(ROOM, "young enough")
        [gap, message] = await pushes(pair.ann)
        assert (gap["type"], gap["reason"], gap["lost"]) == ("gap", "expired", 1)
        assert message["data"] == "young enough"


async def test_broker_that_forgets_leaves_a_gap_if_members_may_have_missed_something(autojump_clock: MockClock) -> None:
    async with open_pair(Kept) as pair:
        await pair.apps[1].publish(ROOM, 1)
        assert await heard(pair.ann) == [1]
        pair.here.delay_next(5.0)
        await pair.apps[1].publish(ROOM, "confirmed, and on its way to one of them")
        pair.here.restart()
        await pair.apps[1].publish(ROOM, "after")
        told = await heard(pair.ann)
        assert told[-1] == "after"
        assert "gap" in told


async def test_faults_that_no_backplane_may_have_are_healed_from_a_history(autojump_clock: MockClock) -> None:
    here = FaultyBackplane(seed=7, drop=0.1, duplicate=0.1, reorder=0.1, delay=(0.0, 0.1))
    async with open_pair(Kept, here) as pair:
        for number in range(200):
            await pair.apps[1].publish(ROOM, number)
        here.drop = 0.0  # the last one has to come, for only what follows shows that something is missing
        await pair.apps[1].publish(ROOM, "end")
        assert await heard(pair.ann) == [*range(200), "end"]
    assert set(here.counts) == set(Fault)


async def test_without_a_history_members_see_such_faults(autojump_clock: MockClock) -> None:
    async with open_pair(Plain) as pair:
        pair.here.drop_next()
        for number in range(3):
            await pair.apps[1].publish(ROOM, number)
        assert (await heard(pair.ann), await heard(pair.bob)) == ([1, 2], [0, 1, 2])
        pair.here.duplicate_next()
        await pair.apps[1].publish(ROOM, 3)
        assert await heard(pair.ann) == [3, 3]


async def test_many_partitions_at_random_lose_nothing_of_a_history(autojump_clock: MockClock) -> None:
    chance = random.Random(3)
    async with open_pair(Kept) as pair, trio.open_nursery() as nursery:

        async def part_now_and_then() -> None:
            while True:
                await trio.sleep(chance.uniform(0, 2))
                with pair.here.partitioned():
                    await trio.sleep(chance.uniform(0, 2))

        nursery.start_soon(part_now_and_then)
        for number in range(100):
            await pair.apps[1].publish(ROOM, number)
            await trio.sleep(0.3)
        nursery.cancel_scope.cancel()
        assert await heard(pair.ann) == list(range(100))


# -- presence --------------------------------------------------------------------------------------


async def names(peer: V1Peer) -> list[str]:
    return sorted(each["user"] for each in (await peer.request("who", room=ROOM))["members"])


async def test_short_partition_hides_nobody_and_shows_what_happened_afterwards(autojump_clock: MockClock) -> None:
    async with open_pair(Attended) as pair:
        await trio.sleep(3)
        both = sorted([pair.ann.id, pair.bob.id])
        assert await names(pair.ann) == await names(pair.bob) == both
        with pair.here.partitioned():
            async with open_v1_peer(pair.servers[0]) as third:
                await third.join(ROOM)
                await trio.sleep(10)
                assert await names(pair.ann) == sorted([*both, third.id])
                assert await names(pair.bob) == both
            await pair.bob.request("leave", room=ROOM)
            await trio.sleep(10)
            assert await names(pair.ann) == both
        await trio.sleep(10)
        assert await names(pair.ann) == [pair.ann.id]


async def test_node_that_is_away_for_longer_than_its_lease_is_taken_for_dead(autojump_clock: MockClock) -> None:
    async with open_pair(Attended, FaultyBackplane(lease=30)) as pair:
        await trio.sleep(3)
        both = sorted([pair.ann.id, pair.bob.id])
        with pair.here.partitioned():
            await trio.sleep(29)
            assert await names(pair.bob) == both
            await trio.sleep(3)
            assert await names(pair.bob) == [pair.bob.id]
        await trio.sleep(3)
        assert await names(pair.ann) == await names(pair.bob) == both
        for _ in range(3):  # one after another, each shorter than the lease
            with pair.here.partitioned():
                await trio.sleep(20)
        await trio.sleep(3)
        assert await names(pair.bob) == both
