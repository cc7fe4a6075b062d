"""Histories on a real server: names, bounds, what a page has and what is refused."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest
import trio

from tests.backplane.history_node import KEPT, ROOM, payloads
from tests.backplane.nats.brokers import open_node
from tests.backplane.nats.servers import NatsServer
from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.requests import NoResponders
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing.histories import listening

pytestmark = pytest.mark.nats

ODD_NAMES = ("a.b", "*", ">", "a b", "=", "=20", "ä ö", "$JS.API", "a\tb\r\nc", "", "A", "a")


async def test_rooms_of_any_name_have_their_own_histories(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url) as first:
        for name in ODD_NAMES:
            node = attrs.evolve(first, room=name)
            history = node.backplane.history
            async with listening(history, name) as receive:
                position = await node.publish(name.encode())
                second = await history.publish(name, b"2", None, "id\r\n=.*")
                assert second == await history.publish(name, b"3", None, "id\r\n=.*")
                assert second is not None
                assert await receive.receive() == Kept(position.epoch, position.offset, name.encode(), 0.0, 0)
                assert await receive.receive() == Kept(position.epoch, second.offset, b"2")
            assert payloads(await node.read()) == [name.encode(), b"2"]


async def test_more_than_the_server_holds_is_refused_with_the_setting_to_change(nats_server: NatsServer) -> None:
    settings = NatsSettings(max_history_size=10, position_ttl=600)
    async with open_node(nats_server.url, settings=settings) as node:
        for history, match in (
            (History(11), r"room 'hall/a' has History.size=11, more than max_history_size=10 .*; raise that"),
            (History(10, ttl=601), r"room 'hall/a' has History.ttl=601 s, more than position_ttl=600 s .*; raise that"),
        ):
            large = attrs.evolve(node, history=history)
            with pytest.raises(BackplaneError, match=match):
                await large.publish(b"x")
            with pytest.raises(BackplaneError, match=match):
                await large.read()
            with pytest.raises(BackplaneError, match=match):
                await large.read_before(1)
        assert (await node.read(None)).kept == ()


async def test_as_much_as_the_server_holds_can_be_kept(nats_server: NatsServer) -> None:
    settings = NatsSettings(max_history_size=10)
    async with open_node(nats_server.url, History(10), settings) as node:
        positions = [await node.publish(b"%d" % number) for number in range(30)]
        for page in (await node.read(0), await node.read_before(positions[-1].offset + 1)):
            assert payloads(page) == [b"%d" % number for number in range(20, 30)]
            assert page.start == positions[19].offset, "the last one that is gone is known"
        assert payloads(await node.read(positions[19].offset)) == [b"%d" % number for number in range(20, 30)]
        few = attrs.evolve(node, history=History(3))
        page = await few.read(positions[22].offset, 1)
        assert (payloads(page), page.start) == ([b"27"], positions[26].offset)


async def test_settings_of_the_stream_can_change(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=NatsSettings(max_history_size=10)) as node:
        last = await node.publish(*[b"%d" % number for number in range(8)])
    async with open_node(nats_server.url, settings=NatsSettings(max_history_size=5, position_ttl=1_000)) as node:
        assert payloads(await node.read()) == [b"3", b"4", b"5", b"6", b"7"]
        assert await node.publish(b"8") == Position(last.epoch, last.offset + 1)


async def test_page_is_bounded_in_bytes_but_one_always_fits(nats_server: NatsServer) -> None:
    sizes = [100_000] * 6 + [3_000_000, 1_100_000, 10, 1_048_576, 20]
    async with open_node(nats_server.url, History(50)) as node:
        last = await node.publish(*[bytes(size) for size in sizes])
        forward, at = [], 0
        while (page := await node.read(at)).kept:
            forward.append([len(payload) for payload in payloads(page)])
            at = page.kept[-1].offset
        assert [size for sizes_of_page in forward for size in sizes_of_page] == sizes
        backward, at = [], last.offset + 1
        while (page := await node.read_before(at)).kept:
            backward.append([len(payload) for payload in payloads(page)])
            at = page.kept[0].offset
        assert [size for sizes_of_page in backward[::-1] for size in sizes_of_page] == sizes
        for page_sizes in forward + backward:
            assert len(page_sizes) == 1 or sum(page_sizes) <= 1 << 20


async def test_what_is_too_old_does_not_count_and_its_place_is_known(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, History(500, ttl=100)) as node:
        old = await node.publish(*[b"%d" % number for number in range(150)])
        await trio.sleep(0.3)
        young = await node.publish(b"young")
        brief = attrs.evolve(node, history=History(500, ttl=0.2))
        for page in (await brief.read(0, 10), await brief.read_before(young.offset + 1, 10)):
            assert (page.start, payloads(page)) == (old.offset, [b"young"])
            assert 0 <= page.kept[0].age < 0.2
        await trio.sleep(0.25)
        assert await brief.read(0) == Page(young, None, young.offset, ())


async def test_pages_before_a_place_are_found_in_rooms_that_publish_unevenly(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, History(1_000)) as node:
        other = attrs.evolve(node, room="other")
        offsets: list[int] = []
        for burst, silence in ((300, 10), (5, 900), (200, 0), (3, 700), (40, 1)):
            async with trio.open_nursery() as nursery:
                for _ in range(silence):
                    nursery.start_soon(other.publish, b"between")
            offsets += [(await node.publish(b"%d" % len(offsets) * 3)).offset for _ in range(burst)]
        for limit in (1, 7, 100, 1_000):
            at = offsets[-1] + 1
            found: list[int] = []
            while (page := await node.read_before(at, limit)).kept:
                assert len(payloads(page)) == min(limit, len(offsets) - len(found))
                found = [kept.offset for kept in page.kept] + found
                at = page.kept[0].offset
            assert found == offsets


async def test_positions_are_lost_when_a_room_has_been_quiet_for_too_long(nats_server: NatsServer) -> None:
    settings = NatsSettings(position_ttl=0.3, publication_id_ttl=0.1)
    async with open_node(nats_server.url, History(5, ttl=0.2), settings) as node:
        async with listening(node.backplane.history, ROOM) as receive:
            last = await node.publish(b"1", b"2")
            await trio.sleep(0.8)
            page = await node.read(last.offset, seen=last)
            assert page.position.epoch == last.epoch, "nothing that was to be kept is lost"
            assert last.offset < page.start <= page.position.offset
            assert page.kept == ()
            await trio.sleep(0.8)
            assert await node.backplane.history.publish(ROOM, b"nowhere", None) is None
            following = await node.publish(b"3")
            heard = [await receive.receive() for _ in range(3)]
            assert heard[1:] == [
                Kept(last.epoch, last.offset, b"2"),
                Kept(last.epoch, following.offset, b"3", 0.0, 0),
            ], "who has been there all the time has lost nothing"


async def test_refusals_are_told_with_the_room(nats_server: NatsServer) -> None:
    settings = NatsSettings(max_publication_bytes=1 << 25)
    async with open_node(nats_server.url, settings=settings) as node:
        await node.publish(b"x")
        with pytest.raises(BackplaneError, match="max_payload"):
            await node.publish(bytes(9 << 20))
        with pytest.raises(ValueError, match="max_publication_bytes"):
            await node.publish(bytes((1 << 25) + 1))
        assert payloads(await node.read()) == [b"x"]


async def test_largest_publication_fits_with_its_headers(nats_server: NatsServer) -> None:
    settings = NatsSettings(max_publication_bytes=1000)
    async with open_node(nats_server.url, settings=settings) as node:
        async with listening(node.backplane.history, ROOM) as receive:
            last = await node.publish(bytes(1000))
            assert await receive.receive() == Kept(last.epoch, last.offset, bytes(1000), 0.0, 0)


async def test_what_others_publish_to_a_rooms_subject_is_no_publication(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url) as node:
        async with listening(node.backplane.history, ROOM) as receive:
            requests = node.backplane._link.requests
            for subject in [f"trioroom.kept.{n}.{name}" for n in range(4) for name in ("room.hall/a", "epoch")]:
                with trio.move_on_after(0.05), suppress(NoResponders):
                    await requests.ask(subject, b"noise")
            last = await node.publish(b"1")
            assert await receive.receive() == Kept(last.epoch, last.offset, b"1", 0.0, 0)


async def test_ids_are_forgotten_after_their_time(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=NatsSettings(publication_id_ttl=0.2)) as node:
        history = node.backplane.history
        first = await history.publish(ROOM, b"1", KEPT, "id")
        assert await history.publish(ROOM, b"2", KEPT, "id") == first
        await trio.sleep(0.5)
        again = await history.publish(ROOM, b"3", KEPT, "id")
        assert again != first
        assert payloads(await node.read()) == [b"1", b"3"]


async def test_place_where_nothing_was_yet_is_known_again(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url) as here, open_node(nats_server.url) as there:
        empty = await here.read(None)
        async with listening(there.backplane.history, ROOM) as receive:
            await attrs.evolve(there, room="other").publish(*[b"x"] * 20)
            last = await there.publish(b"1")
            delivered = await receive.receive()
            assert isinstance(delivered, Kept)
            assert delivered.place_before <= empty.position.offset < delivered.offset
        for page in (await here.read(empty.position.offset, seen=empty.position), await here.read_before(99)):
            assert (page.position, payloads(page)) == (last, [b"1"])
            assert page.start <= empty.position.offset


async def test_nodes_that_spread_histories_differently_are_refused(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url) as node:
        await node.publish(b"1")
    for number in (3, 5):
        with pytest.raises(BackplaneUnavailable, match=f"over 4 streams, and not history_streams={number};"):
            async with open_node(nats_server.url, settings=NatsSettings(history_streams=number)):
                pass
    async with open_node(nats_server.url) as node:
        assert payloads(await node.read()) == [b"1"]
