"""Histories whose room has an odd name, that the server refuses to keep, and noise in their channels."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import attrs
import pytest
from redis.crc import key_slot

from tests.backplane.history_node import KEPT, ROOM
from tests.backplane.redis.servers import Cluster, RedisServer, binaries, open_redis_server
from tests.backplane.redis.test_history import GUIDE, META, ODD_NAMES, listening, open_node, payloads
from trioroom._core.history import History, Kept, Position
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.redis import RedisSettings
from trioroom.backplane.redis.history import _Unpacking
from trioroom.errors import BackplaneError
from trioroom.testing.conformance import subscribed
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.redis


async def test_rooms_of_any_name_have_their_own_histories_on_a_cluster(cluster: Cluster) -> None:
    async with open_node(cluster.url) as first:
        for name in ODD_NAMES:
            node = attrs.evolve(first, room=name)
            history = node.backplane.history
            async with listening(history, name) as receive, subscribed(node.backplane, name, 9) as plain:
                assert (await node.publish(name.encode())).offset == 1
                second = await history.publish(name, b"2", None, "id{}")
                assert second == await history.publish(name, b"3", None, "id{}")
                heard = [await receive.receive() for _ in range(2)]
                assert [each.payload for each in heard if isinstance(each, Kept)] == [name.encode(), b"2"]
                for payload in (b"once", b"twice"):
                    await node.backplane.publish(name, payload, "}id{")
                await node.backplane.publish(name, b"end")
                assert [await plain.receive() for _ in range(2)] == [b"once", b"end"]
            assert payloads(await node.read(0)) == [name.encode(), b"2"]
            tag = history._tag(name)
            assert len({key_slot(tag + rest) for rest in (b"", b":meta", b":stream", b":id:}x{")}) == 1


async def test_refusals_are_told_with_the_room(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        await redis_server.command("SET", META, "of another program")
        with pytest.raises(BackplaneError, match=r"^the broker refused a publication to room 'hall/a': .*WRONGTYPE"):
            await node.publish(b"x")
        with pytest.raises(BackplaneError, match=r"^the broker refused to read the history of room 'hall/a': .*WRONGT"):
            await node.read(0)
        with pytest.raises(ValueError, match="max_publication_bytes"):
            await node.publish(bytes((1 << 22) + 1))


async def test_server_out_of_memory_refuses_and_leaves_no_hole(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        before = await node.publish(b"1")
        await redis_server.command("CONFIG", "SET", "maxmemory", "1")
        for name in (None, "id"):
            with pytest.raises(BackplaneError, match="OOM"):
                await node.backplane.history.publish(ROOM, b"refused", KEPT, name)
        with pytest.raises(BackplaneError, match="OOM"):
            await node.backplane.publish(ROOM, b"refused", "id")
        await redis_server.command("CONFIG", "SET", "maxmemory", "0")
        async with subscribed(node.backplane, ROOM, 9) as receive:
            assert await node.backplane.history.publish(ROOM, b"2", KEPT, "id") == Position(before.epoch, 2)
            await node.backplane.publish(ROOM, b"taken", "id")
            assert await receive.receive() == b"taken"
        assert payloads(await node.read(0)) == [b"1", b"2"]


async def test_largest_publication_fits_with_its_position(redis_server: RedisServer) -> None:
    settings = RedisSettings(max_publication_bytes=1000)
    async with open_node(redis_server.url, settings=settings) as node:
        async with listening(node.backplane.history) as receive:
            last = await node.publish(bytes(1000))
            assert await receive.receive() == Kept(last.epoch, 1, bytes(1000))


@attrs.define
class Record:
    heard: list[Delivery] = attrs.field(factory=list)

    def offer(self, delivery: Delivery) -> None:
        self.heard.append(delivery)


def test_foreign_noise_in_the_channel_is_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    record = Record()
    unpacking = _Unpacking(record, ROOM)
    with caplog.at_level(logging.WARNING):
        for data in (b"a:1:x:y", b"noise", b"a:1", b"a:b:c", b"\xff:1:c", Lost("backplane"), b"b:2:"):
            unpacking.offer(data)
    lost = Lost("backplane", 1)
    assert record.heard == [Kept("a", 1, b"x:y"), *[lost] * 4, Lost("backplane"), Kept("b", 2, b"")]
    assert len(caplog.records) == 4


@pytest.mark.parametrize("binary", binaries().values(), ids=list(binaries()))
async def test_what_the_guide_says_of_acls_is_enough(binary: Path) -> None:
    [rules] = re.findall("^ACL SETUSER rooms (.*)$", GUIDE.read_text("utf-8"), re.MULTILINE)
    async with open_redis_server(binary) as server:
        await server.command("ACL", "SETUSER", "rooms", *rules.split())
        async with open_node(f"redis://rooms:secret@127.0.0.1:{server.port}") as node:
            await node.backplane.history.publish(ROOM, b"x", KEPT, "id")
            await node.backplane.publish(ROOM, b"x", "id")
            assert payloads(await attrs.evolve(node, history=History(5, ttl=0.001)).read(0)) in ([b"x"], [])
            presence, watcher = node.backplane.presence, Watcher()
            async with presence.open(ROOM, watcher, 0.01):
                async with presence.open(ROOM, Watcher(), 0.01) as seat:
                    seat.put("ann", b"1")
                    seat.put("bob", b"2")
                    await watcher.wait_count(2)
                    seat.remove("ann")
                    await watcher.wait_count(1)
                await watcher.wait_count(0)
