"""Whose lease has ended, when two look at the same time, a reply is lost, or who was to bury the dead is dead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio

from tests.backplane.nats.servers import NatsServer
from trioroom.backplane.nats import NatsSettings, open_nats, presence_leases
from trioroom.backplane.nats.bucket import Bucket, Put
from trioroom.backplane.nats.presence_leases import NatsLeases
from trioroom.backplane.nats.presence_table import keys_of_node, put_of_row
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.nats
LEASE = 1.0  # the shortest, in which a server that counts whole seconds could be wrong by as much


@pytest.fixture
async def buckets(nats_server: NatsServer) -> AsyncIterator[list[Bucket]]:
    """Of three nodes."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_nats(nats_server.url)) for _ in range(3)]
        yield [node.presence._bucket for node in nodes]


class Interrupted(NatsLeases):
    """Between its reading and what it makes of that, something happens."""

    happens: Callable[[], Awaitable[None]] | None = None
    """Once."""

    async def _read(self) -> tuple[presence_leases._Lease, list[presence_leases._Lease]]:
        read = await super()._read()
        if self.happens is not None:
            happens, self.happens = self.happens, None
            await happens()
        return read


@pytest.mark.parametrize("lease", [0.0, 0.9, 86_401.0, float("nan"), float("inf"), -1.0])
def test_lease_is_from_a_second_to_a_day(lease: float) -> None:
    with pytest.raises(ValueError, match="presence_lease"):
        NatsSettings(presence_lease=lease)


async def test_lease_ends_when_it_should(buckets: list[Bucket]) -> None:
    one, two = NatsLeases(buckets[0], LEASE), NatsLeases(buckets[1], LEASE)
    with trio.fail_after(10):
        await one.look()
        began = trio.current_time()
        while True:
            await two.look()
            if one.node not in two.live:
                break
            assert trio.current_time() < began + LEASE + 0.05
            await trio.sleep(0.02)
        assert trio.current_time() >= began + LEASE - 0.05
        assert one.node in two.dead


async def test_node_that_was_found_dead_is_another_one(buckets: list[Bucket]) -> None:
    one, two = NatsLeases(buckets[0], LEASE), NatsLeases(buckets[1], LEASE)
    with trio.fail_after(10):
        await one.look()
        node = one.node
        await trio.sleep(LEASE + 0.1)
        await two.look()
        assert node not in two.live
        await one.look()
        assert one.node != node
        await two.look()
        assert one.node in two.live


async def test_node_that_was_late_and_that_nobody_has_found_dead_is_the_same(buckets: list[Bucket]) -> None:
    one, two = NatsLeases(buckets[0], LEASE), NatsLeases(buckets[1], LEASE)
    with trio.fail_after(10):
        await one.look()
        node = one.node
        await trio.sleep(LEASE + 0.1)
        await one.look()
        assert one.node == node
        await two.look()
        assert node in two.live


async def test_renewal_in_the_last_moment_counts(buckets: list[Bucket]) -> None:
    one, two = NatsLeases(buckets[0], LEASE), Interrupted(buckets[1], LEASE)
    with trio.fail_after(10):
        await one.look()
        node = one.node
        await trio.sleep(LEASE + 0.1)
        two.happens = one.look
        await two.look()
        assert node in two.live
        await one.look()
        assert one.node == node


async def test_two_who_find_a_node_dead_at_once_agree(buckets: list[Bucket]) -> None:
    one, two, three = NatsLeases(buckets[0], LEASE), Interrupted(buckets[1], LEASE), NatsLeases(buckets[2], LEASE)
    with trio.fail_after(10):
        await one.look()
        await trio.sleep(LEASE + 0.1)
        two.happens = three.look
        await two.look()
        assert one.node not in two.live
        assert one.node not in three.live


async def test_renewal_whose_confirmation_was_lost_is_one(buckets: list[Bucket]) -> None:
    leases = NatsLeases(buckets[0], LEASE)
    with trio.fail_after(10):
        await leases.look()
        node, before = leases.node, leases._sequence
        await leases.look()
        leases._sequence = before
        await leases.look()
        leases.held = False  # also the very first one
        await leases.look()
        assert leases.node == node


async def test_who_was_late_takes_nobody_for_dead_for_the_time_of_a_lease(buckets: list[Bucket]) -> None:
    one, two, three = (NatsLeases(bucket, LEASE) for bucket in buckets)
    with trio.fail_after(10):
        await one.look()
        await two.look()
        await trio.sleep(LEASE + 0.1)  # as in an outage
        await one.look()
        assert two.node in one.live
        await trio.sleep(0.5)
        await two.look()
        await one.look()
        assert two.node in one.live
        assert one.node in two.live
        await trio.sleep(LEASE + 0.1)
        await three.look()  # which was not there and cannot know
        assert not {one.node, two.node} & three.live.keys()


async def test_dead_are_buried_by_who_finds_them_or_later_by_somebody_else(
    buckets: list[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = NatsLeases(buckets[0], LEASE), NatsLeases(buckets[1], LEASE), NatsLeases(buckets[2], LEASE)
    with trio.fail_after(10):
        await one.look()
        node = one.node
        for room in ("a", "b"):
            await buckets[0].put(put_of_row(room, f"{node}.1", "ann", b"1", 1, 1))
        await trio.sleep(LEASE + 0.1)
        await two.look()  # and dies
        await three.look()
        await three.bury()
        assert len(await buckets[2].read(keys_of_node(node))) == 2, "that is not for everybody to do"
        monkeypatch.setattr(presence_leases, "_BURIAL", 0.1)
        await trio.sleep(0.2)
        await three.look()
        await three.bury()
        assert await buckets[2].read(keys_of_node(node)) == []
        assert await buckets[2].read(f"node.{node}") == []


async def test_answer_that_is_older_than_our_renewal_is_not_taken(
    buckets: list[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(Bucket):
        async def put(self, what: Put, *, after: int | None = None) -> int:
            return await super().put(what, after=after) + 10  # so that what is read is from before it

    monkeypatch.setattr(presence_leases, "_PAUSE", 0.01)
    leases = NatsLeases(buckets[0], LEASE)
    with trio.fail_after(10):
        await leases.look()
        live = dict(leases.live)
        buckets[0].__class__ = Behind
        with pytest.raises(BackplaneUnavailable, match="behind"):
            await leases.look()
        assert leases.live == live


async def test_latest_dead_are_remembered(buckets: list[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_leases, "_MAX_DEAD", 2)
    leases = NatsLeases(buckets[0], LEASE)
    with trio.fail_after(10):
        for number in range(4):
            leases.live[f"node{number}"] = 0.0
            await leases.look()
    assert list(leases.dead) == ["node2", "node3"]
