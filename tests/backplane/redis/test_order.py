"""One order of each room's publications, seen from everywhere, exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import trioroom
from tests.backplane.brokers import parameters
from tests.backplane.observers import END, kept_open, open_nodes
from tests.backplane.redis.servers import RedisServer, binaries, open_cluster, open_redis_server
from tests.conftest import app_of
from trioroom.backplane.base import Backplane, Delivery
from trioroom.testing import Peer, V1Peer, open_peer, open_test_server, open_v1_peer
from trioroom.testing.conformance import subscribed

pytestmark = pytest.mark.redis

ROOMS: Final = 200
DEADLINE: Final = 60.0  # seconds for one example, and for the broker to answer: what is at stake is the order

# A publisher is a node and the rooms that it publishes to, one after the other. Few rooms are busy, as in life.
room_numbers = st.one_of(st.integers(0, 3), st.integers(0, ROOMS - 1))
publishers = st.tuples(st.integers(0, 1), st.lists(room_numbers, min_size=1, max_size=120))
schedules = st.lists(publishers, min_size=2, max_size=12)
Schedule = list[tuple[int, list[int]]]


# -- backplanes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*parameters("redis", "valkey"), "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cluster":
        with kept_open(lambda: open_cluster(binaries()["valkey"])) as cluster:
            yield cluster.url
    else:
        with kept_open(lambda: open_redis_server(binaries()[request.param])) as server:
            yield server.url


async def run_schedule(nodes: Sequence[Backplane], schedule: Schedule) -> list[dict[int, list[Delivery]]]:
    """What each node heard, by room."""
    heard: list[dict[int, list[Delivery]]] = [defaultdict(list) for _ in nodes]

    async def listen(node: int, room: int, task_status: trio.TaskStatus[None]) -> None:
        async with subscribed(nodes[node], f"room/{room}", 4_096) as deliveries:
            task_status.started()
            while (delivery := await deliveries.receive()) != END:
                heard[node][room].append(delivery)

    async def publish(publisher: int, node: int, rooms: list[int]) -> None:
        for number, room in enumerate(rooms):
            await nodes[node].publish(f"room/{room}", b"%d %d" % (publisher, number))

    async with trio.open_nursery() as listeners:
        async with trio.open_nursery() as entering:
            for node in range(len(nodes)):
                for room in range(ROOMS):
                    entering.start_soon(listeners.start, lambda task_status, n=node, r=room: listen(n, r, task_status))
        async with trio.open_nursery() as nursery:
            for publisher, (node, rooms) in enumerate(schedule):
                nursery.start_soon(publish, publisher, node, rooms)
        async with trio.open_nursery() as nursery:
            for room in range(ROOMS):
                nursery.start_soon(nodes[0].publish, f"room/{room}", END)
    return heard


@pytest.mark.untraced
@settings(max_examples=8)
@given(schedule=schedules)
def test_all_nodes_hear_all_publications_of_a_room_in_one_order(url: str, schedule: Schedule) -> None:
    async def run() -> list[dict[int, list[Delivery]]]:
        with trio.fail_after(DEADLINE):
            async with open_nodes(*[f"{url}?timeout={DEADLINE:g}"] * 2) as nodes:
                return await run_schedule(nodes, schedule)

    here, there = trio.run(run)
    assert here == there
    published: dict[int, list[bytes]] = defaultdict(list)
    for publisher, (_, rooms) in enumerate(schedule):
        for number, room in enumerate(rooms):
            published[room].append(b"%d %d" % (publisher, number))
    for room, payloads in published.items():
        own_order = sorted(here[room], key=lambda payload: int(bytes(payload).split()[0]))  # type: ignore[arg-type]
        assert own_order == payloads, f"room {room}: lost, repeated, or one publisher's out of order"
    assert here.keys() == published.keys()


# -- members -----------------------------------------------------------------------------------------


class Talk(trioroom.Room):
    """``all …`` goes to everybody, ``others …`` to all but the one who says it."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        excluded = member if str(message.data).startswith("others") else None
        await self.publish(message.data, exclude=excluded)


class Talker:
    """A member of some room, plain or v1, that writes down what it hears."""

    def __init__(self, connection: Peer | V1Peer) -> None:
        self._connection = connection
        self.heard: list[str] = []

    async def say(self, text: str) -> None:
        if isinstance(self._connection, Peer):
            await self._connection.send(text)
        else:
            await self._connection.send({"type": "publish", "room": "room/a", "data": text})

    async def hear(self) -> str:
        if isinstance(self._connection, Peer):
            return str(await self._connection.receive())
        envelope = await self._connection.receive()
        assert envelope["type"] == "message", envelope
        return str(envelope["data"])

    async def hear_until(self, count: int, end: str) -> None:
        while count:
            self.heard.append(await self.hear())
            count -= self.heard[-1].endswith(end)


@asynccontextmanager
async def open_talkers(url: str) -> AsyncIterator[list[Talker]]:
    """On each of two servers a plain member, one of v1 in JSON and one in MessagePack, all in one room."""
    async with open_nodes(url, url) as nodes, AsyncExitStack() as stack:
        talkers: list[Talker] = []
        for node in nodes:
            server = await stack.enter_async_context(open_test_server(app_of(Talk), backplane=node))
            talkers.append(Talker(await stack.enter_async_context(open_peer(server, "/room/a"))))
            for subprotocol in ("trioroom.v1.json", "trioroom.v1.msgpack"):
                v1 = await stack.enter_async_context(open_v1_peer(server, subprotocol=subprotocol))
                await v1.join("room/a")
                talkers.append(Talker(v1))
        yield talkers


async def test_members_hear_one_order_and_exclude_holds_across_nodes(redis_server: RedisServer) -> None:
    said: dict[int, list[str]] = {
        n: [f"{'others' if number % 3 else 'all'} {n} {number}" for number in range(60)] + [f"all {n} end"]
        for n in range(6)
    }

    async def say(number: int) -> None:
        for text in said[number]:
            await talkers[number].say(text)

    with trio.fail_after(DEADLINE):
        async with open_talkers(redis_server.url) as talkers:
            async with trio.open_nursery() as nursery:
                for number, talker in enumerate(talkers):
                    nursery.start_soon(say, number)
                    nursery.start_soon(talker.hear_until, len(talkers), "end")
    for number, talker in enumerate(talkers):
        for speaker, texts in said.items():
            own = [text for text in texts if text.startswith("all") or speaker != number]
            assert [text for text in talker.heard if text.split()[1] == str(speaker)] == own
    for_all = [[text for text in talker.heard if text.startswith("all")] for talker in talkers]
    assert all(each == for_all[0] for each in for_all)
    for number, talker in enumerate(talkers):  # what both hear of the rest is in one order too
        for other_number, other in enumerate(talkers):
            mine, theirs = f"others {number} ", f"others {other_number} "
            both = [
                [text for text in each if not text.startswith((mine, theirs))] for each in (talker.heard, other.heard)
            ]
            assert both[0] == both[1]


async def test_own_node_hears_a_publication_from_the_broker_too(valkey_server: RedisServer) -> None:
    with trio.fail_after(DEADLINE):
        async with open_talkers(valkey_server.url) as talkers:
            valkey_server.stop()
            await talkers[0].say("all round the broker")
            with trio.move_on_after(0.3):
                pytest.fail(f"{await talkers[1].hear()!r} did not come by the broker, which is stopped")
            valkey_server.resume()
            for talker in talkers:
                assert await talker.hear() == "all round the broker"
