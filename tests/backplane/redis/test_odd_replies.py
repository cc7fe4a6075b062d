"""What finds the servers survives answers of any shape: a proxy says what it likes to commands it does not know."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.backplane.redis.fake_server import array, bulk, connect, integer
from trioroom.backplane.redis import sources
from trioroom.backplane.redis.cluster import Owners, _read_map
from trioroom.backplane.redis.location import Endpoint, parse_location
from trioroom.backplane.redis.sources import SentinelSource
from trioroom.backplane.supervision import LinkLost

REPLIES = [
    integer(1),
    array(),
    b"$-1\r\n",
    array(integer(1)),
    b"+OK\r\n",
    b"%1\r\n+a\r\n+b\r\n",
    array(array(), array()),
]
INFO = bulk(b"cluster_state:ok\r\n")

odd = pytest.mark.parametrize("reply", REPLIES)


@odd
async def test_role(reply: bytes) -> None:
    connection, peer = connect()
    await peer.say(reply)
    with pytest.raises(LinkLost, match=r"ROLE is not what it should be|^it is a "):
        await SentinelSource(parse_location("redis+sentinel://fake:1/rooms")).check(connection)


@odd
async def test_address_of_the_master(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, peer = connect()
    await peer.say(reply)
    monkeypatch.setattr(sources, "open_connection", lambda *_: nullcontext(connection))
    with pytest.raises(LinkLost, match=r"^no sentinel tells where 'rooms' is \(fake:1: "):
        await SentinelSource(parse_location("redis+sentinel://fake:1/rooms")).locate()


@odd
async def test_state_of_the_cluster(reply: bytes) -> None:
    connection, peer = connect()
    await peer.say(reply)
    with pytest.raises(LinkLost, match=r"CLUSTER INFO is not what it should be|^it says that the cluster is down$"):
        await _read_map(connection)


async def read_map(slots: bytes) -> Owners:
    """What is made of ``slots``, an answer to CLUSTER SLOTS, at fake:1."""
    connection, peer = connect()

    async def answer() -> None:
        for reply in (INFO, slots):  # each when it has been asked for
            await peer.say(reply)
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        return await _read_map(connection)


@odd
async def test_slots_of_the_cluster(reply: bytes) -> None:
    if reply == array():  # which is a map, if an empty one
        assert await read_map(reply) == {}
        return
    with pytest.RaisesGroup(pytest.RaisesExc(LinkLost, match="CLUSTER SLOTS is not what it should be")):
        await read_map(reply)


async def test_question_mark_is_no_host_but_the_one_that_was_asked() -> None:
    slots = array(array(integer(0), integer(0), array(bulk(b"?"), integer(7))))
    assert await read_map(slots) == {0: Endpoint("fake", 7)}
