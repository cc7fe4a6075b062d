"""Recovery through Kafka: members who come and go between two servers are complete, or know where they are not."""

from __future__ import annotations

from functools import partial

import pytest
import trio

import trioroom
from tests._net.test_recovery import ROOM, Kept, app_of, join, messages
from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.servers import KafkaServer, NoidaServer
from tests.backplane.observers import open_nodes
from tests.backplane.reconnecting import check, open_stage
from trioroom.backplane.open import open_backplane
from trioroom.testing import open_v1_peer

pytestmark = pytest.mark.kafka
QUICK = f"{PROMPT}&partitions=2&timeout=2&probe_interval=0.2&probe_timeout=1&max_backoff=0.2"


async def test_member_that_moves_to_another_server_gets_what_it_missed(server: KafkaServer) -> None:
    here, there = app_of(), app_of()
    url = f"{server.url}?{QUICK}"
    async with (
        open_nodes(url, url) as nodes,
        trioroom.open_server(here, port=0, backplane=nodes[0]) as one,
        trioroom.open_server(there, port=0, backplane=nodes[1]) as two,
    ):
        async with open_v1_peer(one) as peer:
            position = (await join(peer))["position"]
            await here.publish(ROOM, "seen")
            [(offset, _)] = await messages(peer, 1)
        await there.publish("room/b", "takes an offset")
        await there.publish(ROOM, "missed")
        async with open_v1_peer(two) as peer:
            assert (await join(peer, {**position, "offset": offset}))["recovered"]
            await here.publish(ROOM, "live")
            assert [data for _, data in await messages(peer, 2)] == ["missed", "live"]
            page = await peer.request("history", room=ROOM, limit=2)
            assert [message["data"] for message in page["messages"]] == ["missed", "live"]
            assert page["more"]
        async with open_v1_peer(one) as peer:  # where it is the same place, though that server heard of none since
            assert (await join(peer, page["position"]))["recovered"]
    assert Kept.history is not None


async def test_member_of_a_quiet_room_finds_its_place_on_a_server_that_starts_now(server: KafkaServer) -> None:
    url = f"{server.url}?{QUICK}"
    async with open_backplane(url) as backplane, trioroom.open_server(app_of(), port=0, backplane=backplane) as old:
        async with open_v1_peer(old) as peer:
            position = (await join(peer))["position"]
    app = app_of()
    async with open_backplane(url) as backplane, trioroom.open_server(app, port=0, backplane=backplane) as new:
        async with open_v1_peer(new) as peer:
            assert (await join(peer, position))["recovered"]
            await app.publish(ROOM, "live")
            assert [data for _, data in await messages(peer, 1)] == ["live"]


async def test_members_that_reconnect_at_random_lose_nothing_while_the_broker_is_away(lasting: LastingServer) -> None:
    async with open_stage(partial(open_backplane, f"{lasting.url}?{QUICK}"), 10, 0.02, seed=5) as stage:
        await trio.sleep(1.0)
        lasting.end()
        await lasting.restart()
        await trio.sleep(3.0)
        await stage.settle(20.0)
        check(stage, most_gaps=0, least_published=30)


async def test_members_are_told_that_the_log_is_gone(noida: NoidaServer) -> None:
    """By what the nodes have read: noida gives topics no ids. (Tansu does, and now and then loses a record.)"""
    async with open_stage(partial(open_backplane, f"{noida.url}?{QUICK}"), 10, 0.02, seed=5) as stage:
        await trio.sleep(2.0)
        noida.forget()
        await noida.restart()
        await trio.sleep(4.0)
        await stage.settle(20.0)
        check(stage, most_gaps=4, least_published=30)
