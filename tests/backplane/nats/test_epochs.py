"""Epochs of histories: what one knows of those before it, and that there is one, whoever comes first."""

from __future__ import annotations

import json

import pytest
import trio

from tests.backplane.history_node import KEPT, HistoryNode
from tests.backplane.nats.brokers import open_node
from tests.backplane.nats.servers import NatsServer
from tests.backplane.processes import until
from trioroom._core.history import Position
from trioroom.backplane.nats import NatsBackplane, NatsSettings
from trioroom.backplane.nats.epochs import Before, Epoch, Epochs, parse_record
from trioroom.backplane.nats.history_stream import HistoryStream
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.cancellation import cancel_at_step

ONE_STREAM = NatsSettings(history_streams=1, timeout=10, max_backoff=0.1)


def test_what_an_epoch_lacks() -> None:
    epoch = Epoch("d", 30, "server", (Before("c", 29), Before("b", 20), Before("a", None)))
    for name, has, lacks in (("d", 35, 36), ("c", 29, 30), ("b", 20, 21)):
        assert not epoch.lacks(Position(name, has), 35)
        assert epoch.lacks(Position(name, lacks), 35)
    assert not epoch.lacks(Position("a", 99), 35), "that it has ended is known already"
    assert epoch.lacks(Position("of data that are gone", 1), 35)
    assert not epoch.lacks(None, 35)
    assert not epoch.lacks(Position("d", 30), 3), "a room without a publication in this epoch stands at its begin"
    assert epoch.lacks(Position("d", 31), 3)
    assert epoch.origin == Position("c", 29)
    assert epoch.floor == 0


def test_epochs_that_were_too_long_ago_are_not_missed() -> None:
    epoch = Epoch("now", 99, "server", tuple(Before(f"{number}", number) for number in range(16)))
    assert not epoch.lacks(Position("long ago", 1), 100)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"null", b'{"epoch": "a", "incarnation": "", "goes_on": true, "before": []}', b"[" * 100_000],
)
def test_what_is_no_record_is_told(payload: bytes) -> None:
    with pytest.raises(BackplaneUnavailable, match="no epoch's record"):
        parse_record(payload, 1)


def test_record_that_comes_late_does_not_bring_back_its_epoch() -> None:
    epochs = Epochs("subject", ServerClock(), lambda: "server")
    old, new = Epoch("old", 1, ""), Epoch("new", 9, "", (Before("old", 8),))
    assert epochs.adopt(old)
    assert epochs.adopt(new)
    assert not epochs.adopt(old)
    assert epochs.confirm(12) == Position("new", 12)


def test_where_all_is_gone_the_older_epochs_are_known_to_have_ended_too() -> None:
    epochs = Epochs("subject", ServerClock(), lambda: "server")
    epochs.adopt(Epoch("new", 9, "", (Before("old", 8),)))
    assert epochs._find_unknown([]) == [Before("new", None), Before("old", None)]
    assert epochs._find_unknown([Before("new", 12)]) == [Before("old", None)]


async def records(node: HistoryNode[NatsBackplane]) -> list[dict[str, object]]:
    """All that were written."""
    part = node.backplane.history._parts[0]
    batch = await part._stream.read("trioroom.keep.0.epoch", 1, 100, 1 << 20)
    return [json.loads(stored.payload) for stored in batch.messages]


@pytest.mark.nats
async def test_nodes_that_come_at_once_agree(nats_server: NatsServer) -> None:
    async with trio.open_nursery() as nursery:
        nodes: list[HistoryNode[NatsBackplane]] = []
        done = trio.Event()

        async def stay() -> None:
            async with open_node(nats_server.url, settings=ONE_STREAM) as node:
                nodes.append(node)
                await done.wait()

        async def agree() -> bool:
            positions = [await node.publish(b"x") for node in nodes]
            return len(positions) == 5 and len({position.epoch for position in positions}) == 1

        for _ in range(5):
            nursery.start_soon(stay)
        await until(agree, "all have one epoch")
        assert len(await records(nodes[0])) == 1
        for restarts in (2, 3):
            await nats_server.restart()

            async def are_back(restarts: int = restarts) -> bool:
                try:
                    return await agree() and len(await records(nodes[0])) == restarts
                except BackplaneUnavailable:
                    return False

            await until(are_back, "all have the next one")
        *_, last = await records(nodes[0])
        assert last["goes_on"]
        done.set()


@pytest.mark.nats
async def test_reading_can_be_cancelled_at_any_moment(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=ONE_STREAM) as node:
        for step in range(60):
            with cancel_at_step(step) as scope:
                await node.backplane.history.read_after(f"room {step}", KEPT, 0, 9)
                last = await node.publish(b"1", b"2")
                await node.read_before(last.offset + 1)
                await node.read(0, seen=last)
            assert node.backplane._link.requests.queued == 0
            if not scope.cancelled_caught:
                break
        assert (await node.read(last.offset, seen=last)).position == last


async def begin_anew(node: HistoryNode[NatsBackplane]) -> Epoch:
    """As a reader does who misses something; the epoch that begins."""
    part = node.backplane.history._parts[0]
    await part._epochs.begin_anew(part._stream, part._epochs.current)
    return part._epochs.current


@pytest.mark.nats
async def test_who_has_asked_the_server_before_it_restarts_writes_no_record_for_what_it_was(
    nats_server: NatsServer,
) -> None:
    async with open_node(nats_server.url, settings=ONE_STREAM) as node, trio.open_nursery() as nursery:
        await node.publish(b"1")
        node.backplane.history._parts[0]._epochs.settled = False  # so that it is asked
        nats_server.kill()
        nursery.start_soon(node.publish, b"2")
        await trio.testing.wait_all_tasks_blocked()
        await nats_server.restart()
        await node.publish(b"3")
        assert [each["goes_on"] for each in await records(node)] == [False, True]


@pytest.mark.nats
async def test_record_that_is_gone_while_the_one_before_it_is_there_ends_both_epochs(nats_server: NatsServer) -> None:
    """As in a cluster most of which comes back with older data."""
    async with open_node(nats_server.url, settings=ONE_STREAM) as node:
        old = await node.publish(b"1")
        gone = await begin_anew(node)
        await nats_server.ask("$JS.API.STREAM.MSG.DELETE.trioroom_history_0", b'{"seq": %d}' % gone.begin)
        page = await node.read(0)
        assert page.position.epoch not in (old.epoch, gone.name)
        assert (page.previous, page.kept) == (None, ())
        assert (await node.publish(b"2")).epoch == page.position.epoch
        known = [name for name, _ in (await records(node))[-1]["before"]]  # type: ignore[attr-defined]
        assert known == [gone.name, old.epoch]


@pytest.mark.nats
async def test_record_that_is_written_before_its_subject_is_heard_counts(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=ONE_STREAM) as node:
        old = await node.publish(b"1")
        server = node.backplane._link.server.id
        other = Epochs("trioroom.keep.0.epoch", ServerClock(), lambda: server)

        async def miss_something(requests: Requests) -> None:
            """As another node does, while we are not subscribed yet."""
            stream = HistoryStream(requests, ONE_STREAM, 0)
            await other.settle(stream)
            await other.begin_anew(stream, other.current)

        async def has_come_back() -> bool:
            return node.backplane.ready and node.backplane.meters.outages > 0

        node.backplane._link.on_connection(miss_something)
        await nats_server.kick_clients()
        await until(has_come_back, "the link is up again")
        new = await node.publish(b"2")
        assert new.epoch == other.current.name != old.epoch
