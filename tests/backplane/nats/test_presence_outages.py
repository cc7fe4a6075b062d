"""Outages of the broker, short and long, with and without its data: who was there before is there after it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio

from tests.backplane.brokers import Broker, brokers
from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.outages import INTERVAL, ROOM, STAYS, open_scene, open_seat
from tests.backplane.processes import until
from trioroom.backplane import removals
from trioroom.backplane.base import PresenceSeat
from trioroom.backplane.nats import NatsBackplane, NatsSettings, open_nats
from trioroom.backplane.nats.presence_table import put_of_row
from trioroom.backplane.nats.streams import call_api
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.nats
SETTINGS = NatsSettings(probe_interval=0.2, probe_timeout=0.5, max_backoff=0.1, timeout=1.0)  # a lease of 30 seconds


@pytest.fixture(autouse=True)
def close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "CLOSE_TIMEOUT", 0.2)


async def told_again(watcher: Watcher) -> None:
    """Until it has been told of all rows once more than when it was opened."""
    await watcher.wait(lambda: watcher.resyncs > 1)


# -- of the server ---------------------------------------------------------------------------------


@attrs.frozen
class Pair:
    """Two nodes with a row each."""

    nodes: list[NatsBackplane]
    seats: list[PresenceSeat]
    watchers: list[Watcher]

    async def agree(self) -> None:
        """Each knows the other's row, and what it knows it has been told again."""
        for watcher, user in zip(self.watchers, ("bob", "ann"), strict=True):
            await told_again(watcher)
            await watcher.wait_rows((user, b"1"))

    async def late_node_agrees(self, url: str) -> None:
        """And so does who comes now."""
        late = Watcher()
        async with open_nats(url, settings=SETTINGS) as node, node.presence.open(ROOM, late, INTERVAL):
            await late.wait_rows(("ann", b"1"), ("bob", b"1"))


@asynccontextmanager
async def open_pair(server: NatsServer, settings: NatsSettings = SETTINGS) -> AsyncIterator[Pair]:
    with trio.fail_after(25):
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(open_nats(server.url, settings=settings)) for _ in range(2)]
            watchers = [Watcher(), Watcher()]
            seats = [
                await stack.enter_async_context(node.presence.open(ROOM, watcher, INTERVAL))
                for node, watcher in zip(nodes, watchers, strict=True)
            ]
            for seat, other, user in zip(seats, reversed(watchers), ("ann", "bob"), strict=True):
                seat.put(user, b"1")
                await other.wait_rows((user, b"1"))
            yield Pair(nodes, seats, watchers)


async def test_rows_are_there_after_a_restart_and_nobody_was_told_to_be_gone(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        ids = [node.presence._leases.node for node in pair.nodes]
        await nats_server.restart()
        await pair.agree()
        assert pair.watchers[0].gone == pair.watchers[1].gone == []
        assert [node.presence._leases.node for node in pair.nodes] == ids
        await pair.late_node_agrees(nats_server.url)


async def test_outage_that_is_longer_than_all_leases_makes_nobody_dead(nats_server: NatsServer) -> None:
    async with open_pair(nats_server, attrs.evolve(SETTINGS, presence_lease=1.0)) as pair:
        ids = [node.presence._leases.node for node in pair.nodes]
        nats_server.kill()
        await trio.sleep(2.5)
        await nats_server.restart()
        await pair.agree()
        await trio.sleep(2.5)
        assert pair.watchers[0].gone == pair.watchers[1].gone == []
        assert [node.presence._leases.node for node in pair.nodes] == ids


async def test_node_that_dies_in_an_outage_is_found_dead_after_it(nats_server: NatsServer) -> None:
    watcher = Watcher()
    settings = attrs.evolve(SETTINGS, presence_lease=1.0)
    with trio.fail_after(25):
        async with open_nats(nats_server.url, settings=settings) as here, here.presence.open(ROOM, watcher, INTERVAL):
            async with open_nats(nats_server.url, settings=settings) as there:
                async with there.presence.open(ROOM, Watcher(), INTERVAL) as seat:
                    seat.put("ann", b"1")
                    await watcher.wait_count(1)
                    nats_server.kill()
            await trio.sleep(1.5)
            await nats_server.restart()
            with trio.fail_after(5):
                await watcher.wait_count(0)


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_rows_are_written_again_when_the_server_has_lost_them(nats_server: NatsServer, storage: str) -> None:
    async with open_pair(nats_server, attrs.evolve(SETTINGS, storage=storage)) as pair:
        if storage == "file":
            nats_server.forget()
        await nats_server.restart()
        with trio.fail_after(5):
            await pair.agree()
        # What was there under the ids of before is told to be gone, after what has taken its place.
        for watcher in pair.watchers:
            await watcher.wait_count(1)


async def test_stream_that_is_deleted_is_made_again(nats_server: NatsServer) -> None:
    async with open_pair(nats_server, attrs.evolve(SETTINGS, presence_lease=2.0)) as pair:
        await call_api(pair.nodes[0]._link.requests, "STREAM.DELETE.KV_trioroom_presence")
        pair.seats[0].put("late", b"1")
        with trio.fail_after(5):
            await pair.watchers[1].wait_rows(("ann", b"1"), ("late", b"1"))
        pair.seats[0].remove("late")
        with trio.fail_after(10):
            await pair.watchers[1].wait_rows(("ann", b"1"))
            await pair.watchers[0].wait_rows(("bob", b"1"))
            late = Watcher()
            async with pair.nodes[0].presence.open(ROOM, late, INTERVAL):
                await late.wait_rows(("ann", b"1"), ("bob", b"1"))


async def test_rows_of_one_room_that_others_have_removed_are_written_again(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        await pair.nodes[0].presence._bucket.purge("room.>")
        late = Watcher()
        for seat in pair.nodes[0].presence._seats, pair.nodes[1].presence._seats:
            for each in seat:
                await each.read()
        async with pair.nodes[0].presence.open(ROOM, late, INTERVAL):
            await late.wait_rows(("ann", b"1"), ("bob", b"1"))


async def test_room_cannot_be_opened_without_the_broker(nats_server: NatsServer) -> None:
    with trio.fail_after(20):
        async with open_nats(nats_server.url, settings=SETTINGS) as here:
            nats_server.kill()
            with pytest.raises(BackplaneUnavailable):
                async with here.presence.open(ROOM, Watcher(), INTERVAL):
                    pass


# -- rights ----------------------------------------------------------------------------------------


async def test_rights_that_the_decision_names_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    """And those of rooms, as without them there is no link."""
    stream, leaders = "KV_trioroom_presence", "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED"
    calls = [f"STREAM.{name}.{stream}" for name in ("UPDATE", "PURGE")]
    api = [
        f"$JS.API.{call}"
        for call in (*calls, f"DIRECT.GET.{stream}", "STREAM.CREATE.*", "STREAM.INFO.*", "STREAM.MSG.GET.*")
    ]
    publish = json.dumps([*api, "$KV.trioroom_presence.>", "trioroom.put.>", "trioroom.keep.>"])
    led = ["relay", *[f"history_{number}" for number in range(NatsSettings().history_streams)]]
    rooms = ["trioroom.got.>", "trioroom.kept.>", *[f"{leaders}.trioroom_{stream}" for stream in led]]
    listen = [*rooms, "trioroom.told.>", "_INBOX.>", f"{leaders}.{stream}"]
    user = f"user: a, password: a, permissions: {{ publish: {publish}, subscribe: {json.dumps(listen)} }}"
    configuration = f"accounts {{ A {{ jetstream: enabled, users: [{{ {user} }}] }} }}\nno_auth_user: a\n"
    async with open_nats_server(configuration) as server:
        async with open_pair(server, attrs.evolve(SETTINGS, presence_lease=1.0)) as pair:
            bucket = pair.nodes[0].presence._bucket
            await bucket._make(bucket._made)  # which is there by now
            assert await bucket.latest("nobody") is None
            async with pair.nodes[1].presence.open(ROOM, Watcher(), INTERVAL) as seat:
                seat.put("eve", b"1")
                await pair.watchers[0].wait_rows(("bob", b"1"), ("eve", b"1"))
            await pair.watchers[0].wait_rows(("bob", b"1"))
    assert [record.message for record in caplog.records if "ermission" in record.message] == []


# -- of one node -----------------------------------------------------------------------------------


@brokers("nats")
async def test_node_that_was_cut_off_for_longer_than_its_lease_comes_back(broker: Broker) -> None:
    async with open_scene(broker, presence_lease=1.0) as scene:
        here = Watcher()
        async with (
            scene.watched(ROOM) as watcher,
            scene.watched(STAYS),
            open_seat(scene.behind, ROOM, here) as seat,
            open_seat(scene.witness, ROOM, Watcher()) as stays,
        ):
            stays.put("bob", b"1")
            seat.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"), ("bob", b"1"))
            await here.wait_rows(("bob", b"1"))
            scene.proxy.black_hole()
            await watcher.wait_rows(("bob", b"1"))
            seat.put("ann", b"2")
            stays.put("bob", b"2")
            assert here.rows() == [("bob", b"1")]
            scene.proxy.heal()
            with trio.fail_after(5):
                await watcher.wait_rows(("ann", b"2"), ("bob", b"2"))
                await here.wait_rows(("bob", b"2"))
            assert len(watcher.gone) == 1


@brokers("nats")
async def test_seat_is_open_when_its_table_was_read_also_if_the_link_breaks_meanwhile(broker: Broker) -> None:
    watcher, opened = Watcher(), trio.Event()

    async def hold(node: NatsBackplane) -> None:
        async with open_seat(node, ROOM, watcher):
            assert watcher.resyncs, "entered before the first resynced"
            opened.set()
            await watcher.wait_rows(("ann", b"1"))

    async with open_scene(broker) as scene, open_seat(scene.witness, ROOM, Watcher()) as seat:
        node, witness = scene.behind, scene.witness
        assert isinstance(node, NatsBackplane)
        assert isinstance(witness, NatsBackplane)
        async with open_seat(node, STAYS, Watcher()), trio.open_nursery() as nursery:
            # A row of an unknown node has the reader look at the leases, and there we hold it up.
            bucket = witness.presence._bucket
            await bucket.put(put_of_row(ROOM, "dead.1", "ghost", b"1", 1, 1))
            async with node.presence._leases._looking:
                nursery.start_soon(hold, node)

                async def waits() -> bool:
                    return node.presence._leases._looking.statistics().tasks_waiting > 0

                await until(waits, "the table is read")
                scene.proxy.reset()
                await node._link.wait_changed()
                while not node.ready:
                    await node._link.wait_changed()
            await opened.wait()
            seat.put("ann", b"1")
