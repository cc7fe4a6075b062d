"""Histories in Kafka: what nodes agree on whenever they start, what bounds it, and when an epoch ends."""

from __future__ import annotations

import pytest
import trio
from confluent_kafka import KafkaError

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster
from tests.backplane.kafka.servers import KafkaServer, NoidaServer, TansuServer
from tests.backplane.kafka.topics import add_partitions
from tests.backplane.observers import open_nodes
from tests.backplane.processes import until
from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Backplane, Lost
from trioroom.backplane.kafka import link
from trioroom.backplane.kafka.history import KafkaHistory
from trioroom.backplane.kafka.records import HISTORY as HISTORY_KIND
from trioroom.backplane.kafka.records import Place
from trioroom.backplane.open import open_backplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import ROOM
from trioroom.testing.histories import HISTORY, history_of, listening, position_of, publish, publish_numbers

pytestmark = pytest.mark.kafka


def url_of(server: KafkaServer, **settings: float) -> str:
    more = "".join(f"&{name}={value}" for name, value in settings.items())
    return f"{server.url}?{PROMPT}&partitions=2&probe_interval=0.2&max_backoff=0.2{more}"


async def read_all(node: Backplane, history: History = HISTORY, room: str = ROOM) -> Page:
    return await history_of(node).read_after(room, history, 0, 1_000)


def payloads(page: Page) -> list[bytes]:
    return [kept.payload for kept in page.kept]


async def test_node_that_starts_late_has_the_same_publications_at_the_same_places(server: KafkaServer) -> None:
    async with open_backplane(url_of(server)) as early:
        store = history_of(early)
        positions = []
        for number in range(20):
            await store.publish(f"room/{number}", b"between", HISTORY)
            positions.append(await store.publish(ROOM, b"%d" % number, HISTORY, f"id {number}"))
        async with open_backplane(url_of(server)) as late:
            ours, theirs = await read_all(early), await read_all(late)
            assert [position_of(kept) for kept in theirs.kept] == positions
            assert [(kept.payload, kept.follows) for kept in theirs.kept] == [
                (kept.payload, kept.follows) for kept in ours.kept
            ]
            assert theirs.start == ours.start == 0
            again = await history_of(late).publish(ROOM, b"again", HISTORY, "id 3")
            assert again == positions[3]
            assert len((await read_all(late)).kept) == 20


async def test_partitions_that_are_added_begin_all_histories_anew(
    lasting: LastingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CHECK_SECONDS", 0.1)
    async with open_nodes(url_of(lasting)) as (node,), listening(history_of(node)) as deliveries:
        before = await history_of(node).publish(ROOM, b"before", HISTORY)
        await trio.to_thread.run_sync(add_partitions, lasting.bootstrap, 7)
        with trio.fail_after(10):
            while not isinstance(await deliveries.receive(), Lost):
                pass
            while not node.ready:  # noqa: ASYNC110  # a probe of the outside knows no event
                await trio.sleep(0.02)
        after = await history_of(node).publish(ROOM, b"after", HISTORY)
        page = await read_all(node)
        assert payloads(page) == [b"after"]
        assert before is not None
        assert after is not None
        assert before.epoch != after.epoch == page.position.epoch
        async with open_backplane(url_of(lasting)) as late:
            assert [position_of(kept) for kept in (await read_all(late)).kept] == [after]


async def test_room_that_wants_more_than_the_window_gets_that_and_it_is_said_once(
    server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nodes(url_of(server, history_window=1.0)) as (node,):
        for number in range(3):
            await history_of(node).publish(ROOM, b"%d" % number, HISTORY)
        assert payloads(await read_all(node)) == [b"0", b"1", b"2"]
        await trio.sleep(1.2)
        await history_of(node).publish(ROOM, b"young", HISTORY)
        page = await read_all(node)
        assert payloads(page) == [b"young"]
        assert page.start < page.kept[0].offset
    said = [record for record in caplog.records if "history_window" in record.message]
    assert [record.message for record in said] == [
        f"kafka: room {ROOM} wants to keep publications for 300 s; they are kept for history_window=1 s"
    ]


async def test_rooms_beyond_the_bound_in_bytes_lose_theirs_and_members_are_not_told_otherwise(
    server: KafkaServer,
) -> None:
    async with open_nodes(url_of(server, max_history_bytes=20_000)) as (node,):
        store = history_of(node)
        first = await store.publish("room/quiet", bytes(5_000), HISTORY)
        assert first is not None
        for number in range(4):
            await store.publish(f"room/{number}", bytes(5_000), HISTORY)
        page = await read_all(node, room="room/quiet")
        assert (page.kept, page.position.epoch) == ((), first.epoch)
        assert page.start >= first.offset, "nobody with a place before it has all"
        assert len((await read_all(node, room="room/3")).kept) == 1


async def test_position_beyond_the_end_begins_an_epoch_on_all_nodes_and_those_to_come(server: KafkaServer) -> None:
    async with open_nodes(*[url_of(server)] * 2) as (here, there):
        [*_, last] = await publish_numbers(history_of(here), 3)
        async with listening(history_of(there)) as channel:
            before = await read_all(there)
            ahead = Position(last.epoch, last.offset + 1_000)
            page = await history_of(here).read_after(ROOM, HISTORY, ahead.offset, 10, seen=ahead)
            assert page.position.epoch != last.epoch == before.position.epoch
            assert (page.previous, page.kept) == (None, ())
            assert last.offset < page.start <= page.position.offset  # between these two there may be a probe's record
            assert await channel.receive() == Lost("backplane")
            assert (await read_all(there)).position.epoch == page.position.epoch
            new = await publish(history_of(there), b"new")
            assert new.epoch == page.position.epoch
            assert position_of(await next_kept(channel)) == new
            assert [position_of(kept) for kept in (await read_all(there)).kept] == [new]
        async with open_backplane(url_of(server)) as late:
            assert [position_of(kept) for kept in (await read_all(late)).kept] == [new]


async def test_broker_that_comes_back_empty_ends_the_epoch_and_all_are_told(server: KafkaServer) -> None:
    async with open_nodes(*[url_of(server)] * 2) as (here, there), listening(history_of(there)) as channel:
        positions = await publish_numbers(history_of(here), 3)
        assert [position_of(await next_kept(channel)) for _ in positions] == positions
        server.forget()
        await server.restart()

        async def are_back() -> bool:
            return here.ready and there.ready

        with trio.fail_after(10):
            assert await channel.receive() == Lost("backplane")
        await until(are_back, "both nodes are back", 10)
        page = await history_of(there).read_after(ROOM, HISTORY, positions[-1].offset, 10, seen=positions[-1])
        assert page.position.epoch != positions[-1].epoch
        assert page.kept == ()
        new = await publish(history_of(here), b"new")
        assert new.epoch == page.position.epoch
        assert position_of(await next_kept(channel)) == new


async def test_log_without_an_id_has_another_epoch_each_time_that_it_is_lost(noida: NoidaServer) -> None:
    async with open_nodes(url_of(noida)) as (node,), listening(history_of(node)) as channel:
        epochs = []
        for _ in range(3):
            epochs.append((await read_all(node)).position.epoch)
            position = await publish(history_of(node), b"lost")
            assert position.epoch == epochs[-1]
            assert position_of(await next_kept(channel)) == position
            noida.forget()
            await noida.restart()
            with trio.fail_after(20):
                assert await channel.receive() == Lost("backplane")
        assert len(set(epochs)) == len(epochs)


async def test_log_that_has_lost_a_node_s_place_but_not_what_was_before_it_begins_an_epoch(
    mock_cluster: MockCluster,
) -> None:
    mock_cluster.create_topic("trioroom.rooms", 2, 3)
    mock_cluster.create_topic("trioroom.presence", 1, 3)
    async with open_nodes(f"{mock_cluster.url}?{PROMPT}") as (node,), listening(history_of(node)) as channel:
        positions = await publish_numbers(history_of(node), 3)
        assert [position_of(await next_kept(channel)) for _ in positions] == positions
        mock_cluster.push_errors(ApiKey.FETCH, *[KafkaError.OFFSET_OUT_OF_RANGE] * 8)
        with trio.fail_after(10):
            while await channel.receive() != Lost("backplane"):
                pass
        last = positions[-1]
        page = await read_until_up(node, last)
        assert page.position.epoch != last.epoch, "it may have been cut off, and be another one from there on"
        assert page.kept == ()
        new = await publish(history_of(node), b"new")
        assert position_of(await next_kept(channel)) == new
        assert new.epoch == page.position.epoch


async def test_log_that_went_on_without_a_node_goes_on_in_its_epoch(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("trioroom.rooms", 1, 1)
    mock_cluster.create_topic("trioroom.presence", 1, 3)
    async with open_nodes(f"{mock_cluster.url}?{PROMPT}&probe_timeout=30") as (node,):
        async with listening(history_of(node)) as channel:
            first = await publish(history_of(node), b"first")
            assert position_of(await next_kept(channel)) == first
            mock_cluster.push_errors(ApiKey.FETCH, *[KafkaError.UNKNOWN_LEADER_EPOCH] * 20)  # it cannot read
            positions = await publish_numbers(history_of(node), 5)
            mock_cluster.delete_records("trioroom.rooms", 0, positions[2].offset)
            mock_cluster.clear_errors(ApiKey.FETCH)
            with trio.fail_after(10):
                while await channel.receive() != Lost("backplane"):
                    pass
            page = await read_until_up(node, first)
            assert page.position.epoch == first.epoch
            assert page.start > first.offset
            assert [position_of(kept) for kept in page.kept] == positions[3:]


async def test_publication_that_the_log_confirmed_and_lost_is_not_tried_again(tansu: TansuServer) -> None:
    async with open_nodes(url_of(tansu)) as (node,):
        store = history_of(node)
        assert isinstance(store, KafkaHistory)
        position = await publish(store, b"first")
        partition = store._log.partition_of(HISTORY_KIND, ROOM)
        far = Place(partition, position.offset + 1_000)  # confirmed, and not read yet
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tansu.restart)
            with trio.fail_after(4):  # before the timeout
                assert await store._comes_round(far, store._losses[partition]) is False


async def read_until_up(node: Backplane, seen: Position) -> Page:
    with trio.fail_after(20):
        while True:
            try:
                return await history_of(node).read_after(ROOM, HISTORY, seen.offset, 10, seen=seen)
            except BackplaneUnavailable:
                await trio.sleep(0.1)


async def next_kept(channel: RoomChannel) -> Kept:
    with trio.fail_after(10):
        while not isinstance(delivery := await channel.receive(), Kept):
            pass
    return delivery
