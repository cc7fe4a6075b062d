"""A bucket keeps the latest of each key, in the order in which they were put, and is made when it is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio

from tests.backplane.nats.servers import NatsCluster, NatsServer, open_nats_server
from tests.backplane.processes import until
from trioroom.backplane.nats import NatsBackplane, NatsSettings, bucket, open_nats
from trioroom.backplane.nats.bucket import Bucket, Put
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.streams import WRONG_LAST_SEQUENCE, JetStreamError, call_api
from trioroom.errors import BackplaneError

pytestmark = pytest.mark.nats


@pytest.fixture
async def node(nats_server: NatsServer) -> AsyncIterator[NatsBackplane]:
    with trio.fail_after(20):
        async with open_nats(nats_server.url) as opened:
            yield opened


@pytest.fixture
def kept(node: NatsBackplane) -> Bucket:
    return node.presence._bucket


async def contents(kept: Bucket, keys: str = ">") -> dict[str, bytes]:
    return {entry.key: entry.payload for entry in await kept.read(keys)}


async def test_latest_of_each_key_is_there(kept: Bucket) -> None:
    numbers = [await kept.put(Put(key, payload)) for key, payload in (("a", b"1"), ("b", b"2"), ("a", b"\0\r\n"))]
    assert numbers == sorted(numbers)
    entries = await kept.read(">")
    assert [(entry.key, entry.payload) for entry in entries] == [("b", b"2"), ("a", b"\0\r\n")]
    assert [entry.sequence for entry in entries] == numbers[1:]
    assert await kept.latest("a") == (numbers[2], b"\0\r\n")
    assert await kept.latest("nobody") is None


async def test_only_what_matches_is_read_and_purged(kept: Bucket) -> None:
    for key in ("room.a.1", "room.a.2", "room.b.1", "node.1"):
        await kept.put(Put(key, b""))
    assert list(await contents(kept, "room.a.>")) == ["room.a.1", "room.a.2"]
    assert list(await contents(kept, "room.*.1")) == ["room.a.1", "room.b.1"]
    assert await contents(kept, "nobody.>") == {}
    await kept.purge("room.*.1")
    assert list(await contents(kept)) == ["room.a.2", "node.1"]


@pytest.mark.parametrize(
    ("count", "large"),
    [
        *((count, 1) for count in (1_000, 1_001, 1_024, 1_025, 2_001)),
        *((count, 3_000) for count in (1_001, 2_001)),
        *(pytest.param(count, 3_000, marks=pytest.mark.thorough) for count in (1_000, 1_024, 1_025)),
    ],
)
async def test_more_than_a_reply_holds_is_read_in_several(kept: Bucket, count: int, large: int) -> None:
    """Up to 1,024 keys the server has one way, beyond it another."""
    puts = [Put(f"key.{number}", b"%d" % number * large) for number in range(count)]
    await kept.put_all(iter(puts))
    await kept.put(Put("another", b""))
    assert await contents(kept, "key.*") == {put.key: put.payload for put in puts}


async def test_few_keys_are_found_among_many_without_a_look_at_all(node: NatsBackplane, kept: Bucket) -> None:
    await kept.put_all(Put(f"other.{number}", b"") for number in range(10_000))
    await kept.put_all(Put(f"key.{number}", b"") for number in range(10))
    asked: list[bytes] = []
    ask_many = kept._requests.ask_many

    async def note(subject: str, payload: bytes = b"", *, last: Callable[[Message], bool]) -> list[Message]:
        asked.append(payload)
        return await ask_many(subject, payload, last=last)

    kept._requests.ask_many = note  # type: ignore[method-assign]
    assert len(await contents(kept, "key.*")) == 10
    [payload] = asked
    assert b"multi_last" in payload


async def test_many_puts_go_out_together(node: NatsBackplane, kept: Bucket) -> None:
    await kept.put(Put("first", b""))
    before = node.meters.batches.count
    await kept.put_all(Put(f"key.{number}", b"") for number in range(1_000))
    assert node.meters.batches.count - before < 100


async def test_put_on_condition(kept: Bucket) -> None:
    first = await kept.put(Put("a", b"1"), after=0)
    second = await kept.put(Put("a", b"2"), after=first)
    for wrong in (0, first, second + 1):
        with pytest.raises(JetStreamError) as caught:
            await kept.put(Put("a", b"3"), after=wrong)
        assert caught.value.err_code == WRONG_LAST_SEQUENCE
    assert await contents(kept) == {"a": b"2"}


async def test_of_several_that_put_the_same_key_at_once_in_a_cluster_one_succeeds(
    shared_nats_cluster: NatsCluster,
) -> None:
    refused: list[int] = []
    async with open_nats(f"{shared_nats_cluster.url}?prefix=at-once&replicas=3") as node:
        kept = node.presence._bucket

        async def put(number: int) -> None:
            try:
                await kept.put(Put("a", b"%d" % number), after=first)
            except JetStreamError as exc:
                refused.append(exc.err_code)

        first = await kept.put(Put("a", b""))
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(put, number)
    assert refused == [WRONG_LAST_SEQUENCE] * 5
    await shared_nats_cluster.remove_streams()


async def test_if_one_of_many_fails_the_others_are_put(kept: Bucket) -> None:
    large = bytes(9 << 20)  # more than the server takes
    with pytest.raises(BackplaneError, match="max_payload"):
        await kept.put_all([Put("a", b""), Put("b", large), Put("c", b"")])
    assert sorted(await contents(kept)) == ["a", "c"]
    await kept.put_all([Put(f"key.{number}", b"") for number in range(bucket._PUTS_AT_ONCE)])  # no slot was lost


async def test_what_fades_is_gone_after_its_time(kept: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_FADES", "1s")
    await kept.put(Put("mark", b"", fades=True))
    await kept.put(Put("row", b""))
    assert list(await contents(kept)) == ["mark", "row"]

    async def only_the_row_is_there() -> bool:
        return list(await contents(kept)) == ["row"]

    await until(only_the_row_is_there, "the mark is gone")


async def test_bucket_that_is_missing_is_made(nats_server: NatsServer) -> None:
    # In memory: where one on disk is made within milliseconds of its end, the server may find what the old one had.
    with trio.fail_after(20):
        async with open_nats(nats_server.url, settings=NatsSettings(storage="memory")) as node:
            await lose_bucket_twice(node, node.presence._bucket)


async def lose_bucket_twice(node: NatsBackplane, kept: Bucket) -> None:
    async def has(expected: dict[str, bytes]) -> None:
        async def is_there() -> bool:
            return await contents(kept) == expected

        await until(is_there, "the server, where a bucket that was deleted goes on answering for a moment")

    assert await contents(kept) == {}
    for payload in (b"1", b"2"):
        await kept.put(Put("a", payload))
        await has({"a": payload})  # deleted before it answers, it would do so for ever
        await call_api(node._link.requests, "STREAM.DELETE.KV_trioroom_presence")
        assert await kept.latest("a") is None
        await kept.purge("a")
    await has({})


async def test_bucket_that_many_miss_is_made_once(node: NatsBackplane, kept: Bucket) -> None:
    await kept.put_all(Put(f"key.{number}", b"") for number in range(500))
    assert kept._made == 1
    assert len(await contents(kept)) == 500


async def test_bucket_of_another_configuration_is_brought_in_line(node: NatsBackplane, kept: Bucket) -> None:
    old = {**kept._config, "allow_msg_ttl": False, "max_msgs_per_subject": 5}
    await call_api(node._link.requests, "STREAM.CREATE.KV_trioroom_presence", old)
    await kept._make(0)
    await kept.put(Put("mark", b"", fades=True))


async def test_room_without_rights_says_what_is_refused() -> None:
    rights = 'deny: ["$KV.trioroom_presence.>"]'
    configuration = (
        f"authorization {{ users: [{{ user: a, password: b, permissions: {{ publish: {{ {rights} }} }} }}] }}"
    )
    with trio.fail_after(20):
        async with open_nats_server(configuration) as server:
            async with open_nats(server.url.replace("//", "//a:b@")) as node:
                with pytest.raises(BackplaneError, match="Permissions Violation"):
                    await node.presence._bucket.put(Put("a", b""))
