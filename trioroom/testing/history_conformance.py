"""What everything that keeps histories has to pass: the contract of `HistoryStore`, as tests.

It is used as `trioroom.testing.conformance` is; a backplane that keeps histories passes both suites.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio
import trio.testing

from trioroom._core.history import History, Page, Position
from trioroom.backplane.base import Backplane
from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.conformance import CAPACITY, END, NAMES, PAYLOADS, ROOM, make_channel, subscribed
from trioroom.testing.histories import (
    HISTORY,
    assert_ends,
    contents,
    end_of,
    follow,
    history_of,
    kept_of,
    listening,
    offsets_of,
    position_of,
    publish,
    publish_numbers,
    publish_with_ids,
    read_backward,
    read_forward,
)
from trioroom.testing.nodes import ConformanceSuite


class HistoryConformance(ConformanceSuite):
    """The suite for ``Backplane.history``. Whether offsets have holes is the store's to say: ``dense_offsets``."""

    short_ttl = 1.0
    """Seconds; long enough that the broker is not late by a third of it."""

    async def let_pass(self, seconds: float) -> None:
        """Wait until publications are so much older. Override it where there is a way to move the store's clock."""
        await trio.sleep(seconds)

    # -- order, and one step -----------------------------------------------------------------------

    async def test_publishing_and_reading_are_checkpoints(self) -> None:
        async with self.nodes(1) as (node,):
            store = history_of(node)
            with trio.testing.assert_checkpoints():
                await store.publish(ROOM, b"nobody hears it", HISTORY)
            with trio.testing.assert_checkpoints():
                await store.read_after(ROOM, HISTORY, 0, 1)
            with trio.testing.assert_checkpoints():
                await store.read_before(ROOM, HISTORY, 2, 1)

    async def test_offsets_go_up_and_are_the_same_on_all_nodes(self) -> None:
        async with self.nodes(3) as nodes, AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(listening(history_of(node))) for node in nodes]
            positions: dict[bytes, Position | None] = {}

            async def publish_many(number: int, node: Backplane) -> None:
                for index in range(20):
                    payload = b"%d %d" % (number, index)
                    positions[payload] = await history_of(node).publish(ROOM, payload, HISTORY)

            async with trio.open_nursery() as nursery:
                for number, node in enumerate(nodes):
                    nursery.start_soon(publish_many, number, node)
            received = [[kept_of(await channel.receive()) for _ in range(60)] for channel in channels]
            seen = [{kept.payload: position_of(kept) for kept in each} for each in received]
            assert list(seen[0].items()) == list(seen[1].items()) == list(seen[2].items())
            assert positions == seen[0]
            offsets = [kept.offset for kept in received[0]]
            assert offsets == sorted(set(offsets))
            assert offsets == list(range(1, 61)) or not history_of(nodes[0]).dense_offsets
            assert await read_forward(history_of(nodes[1])) == list(seen[0])

    async def test_each_delivery_says_what_it_follows(self) -> None:
        """Else each one would be read once more: the room could not know that nothing is missing before it."""
        async with self.nodes(2) as (here, there), listening(history_of(there)) as channel:
            before = (await history_of(there).read_after(ROOM, HISTORY, None, 1)).position.offset
            for node in (here, there) * 5:
                await history_of(node).publish("another/room", b"between them", HISTORY)
                await publish(history_of(node), b"x")
                kept = kept_of(await channel.receive())
                assert kept.place_before <= before < kept.offset
                before = kept.offset

    async def test_what_is_delivered_can_be_read(self) -> None:
        async with self.nodes(2) as (here, there), listening(history_of(there)) as channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_numbers, history_of(here), 20)
                for _ in range(20):
                    kept = kept_of(await channel.receive())
                    page = await history_of(there).read_after(ROOM, HISTORY, kept.offset - 1, 1)
                    assert contents(page) == [(kept.offset, kept.payload)]

    async def test_what_is_read_after_subscribing_and_what_comes_leave_no_hole(self) -> None:
        async with self.nodes(2) as (here, there), trio.open_nursery() as nursery:
            nursery.start_soon(publish_numbers, history_of(there), 100)
            for _ in range(10):
                async with listening(history_of(here)) as channel:
                    page = await history_of(here).read_after(ROOM, HISTORY, None, 1)
                    await history_of(here).publish(ROOM, END, HISTORY)
                    at = page.position.offset
                    while True:
                        kept = kept_of(await channel.receive())
                        assert kept.offset <= at or kept.place_before <= at
                        at = max(at, kept.offset)
                        if kept.payload == END:
                            break
                    assert kept.offset == at
            nursery.cancel_scope.cancel()

    # -- pages -------------------------------------------------------------------------------------

    async def test_room_that_is_not_used_yet_has_a_position(self) -> None:
        async with self.nodes(2) as (here, there):
            first = await history_of(here).read_after(ROOM, HISTORY, None, 10)
            epoch, place = first.position.epoch, first.position.offset
            assert place == 0 or not history_of(here).dense_offsets
            for page in (
                first,
                await history_of(there).read_after(ROOM, HISTORY, place, 10, seen=first.position),
                await history_of(there).read_before(ROOM, HISTORY, place + 1, 10),
            ):
                assert (page.position.epoch, page.previous, page.kept) == (epoch, None, ())
                assert page.start <= place <= page.position.offset
            published = await publish(history_of(there), b"the first")
            assert published.epoch == epoch
            assert published.offset > place
            page = await history_of(here).read_after(ROOM, HISTORY, place, 10, seen=first.position)
            assert offsets_of(page) == [published.offset]

    async def test_pages_meet_where_they_are_asked_for(self) -> None:
        async with self.nodes(2) as (here, there):
            positions = await publish_numbers(history_of(here), 10)
            offsets = [position.offset for position in positions]
            store = history_of(there)

            def numbers(page: Page) -> list[int]:
                """Which of the ten there are on it."""
                assert_ends(page, store, positions[-1])
                assert page.start < offsets[0]
                assert page.previous is None
                return [offsets.index(offset) + 1 for offset in offsets_of(page)]

            async def after(offset: int | None, limit: int) -> list[int]:
                return numbers(await store.read_after(ROOM, HISTORY, offset, limit))

            async def before(offset: int, limit: int) -> list[int]:
                return numbers(await store.read_before(ROOM, HISTORY, offset, limit))

            _, _, third, _, _, _, _, eighth, _, tenth = offsets
            far = tenth + 89
            assert [await after(0, 3), await after(third, 3), await after(eighth, 3)] == [[1, 2, 3], [4, 5, 6], [9, 10]]
            assert [await after(tenth, 3), await after(far, 3), await after(None, 3)] == [[], [], []]
            assert [await before(tenth + 1, 3), await before(eighth, 3)] == [[8, 9, 10], [5, 6, 7]]
            assert [await before(third, 3), await before(offsets[0], 3), await before(0, 3)] == [[1, 2], [], []]
            assert await before(far, 3) == [8, 9, 10]

    async def test_payloads_are_kept_as_they_are(self) -> None:
        async with self.nodes(2) as (here, there), listening(history_of(there)) as channel:
            for payload in PAYLOADS:
                await history_of(here).publish(ROOM, payload, HISTORY)
                assert kept_of(await channel.receive()).payload == payload
            assert await read_forward(history_of(there)) == list(PAYLOADS)
            assert await read_backward(history_of(there)) == list(PAYLOADS)

    async def test_pages_of_large_publications_are_short_and_leave_none_out(self) -> None:
        async with self.nodes(1) as (node,):
            store = history_of(node)
            payloads = [b"%d" % number * 100_000 for number in range(10, 40)]
            last = [await publish(store, payload) for payload in payloads][-1].offset
            for page in (
                await store.read_after(ROOM, HISTORY, 0, 1_000),
                await store.read_before(ROOM, HISTORY, last + 1, 1_000),
            ):
                assert sum(len(kept.payload) for kept in page.kept) <= 2 * 1024 * 1024
            assert await read_forward(store) == await read_backward(store) == payloads

    async def test_known_positions_begin_no_new_epoch(self) -> None:
        async with self.nodes(2) as (here, there):
            positions = await publish_numbers(history_of(here), 3)
            for number, seen in enumerate(positions, 1):
                page = await history_of(there).read_after(ROOM, HISTORY, seen.offset, 10, seen=seen)
                assert_ends(page, history_of(there), positions[-1])
                assert len(page.kept) == 3 - number

    async def test_what_is_lost_is_lost_once(self) -> None:
        async with self.nodes(2) as (here, there):
            last = (await publish_numbers(history_of(here), 3))[-1]
            ahead = Position(last.epoch, last.offset + 1_000)
            lost = await history_of(here).read_after(ROOM, HISTORY, ahead.offset, 10, seen=ahead)
            assert lost.position.epoch != last.epoch
            for store in (history_of(here), history_of(there)):
                page = await store.read_after(ROOM, HISTORY, lost.position.offset, 10, seen=lost.position)
                assert (page.position.epoch, page.kept) == (lost.position.epoch, ())

    # -- how much is kept ----------------------------------------------------------------------

    async def test_only_so_many_are_kept(self) -> None:
        async with self.nodes(2) as (here, there):
            few = History(5)
            positions = [await publish(history_of(here), b"%d" % number, few) for number in range(12)]
            last = positions[-1].offset
            for page in (
                await history_of(there).read_after(ROOM, few, 0, 10),
                await history_of(there).read_before(ROOM, few, last + 1, 10),
            ):
                assert_ends(page, history_of(there), positions[-1])
                assert positions[6].offset <= page.start < positions[7].offset
                assert contents(page) == [(positions[number].offset, b"%d" % number) for number in range(7, 12)]
            assert contents(await history_of(there).read_before(ROOM, few, positions[7].offset, 10)) == []

    async def test_only_so_long_is_kept(self) -> None:
        brief = History(100, ttl=self.short_ttl)
        async with self.nodes(2) as (here, there):
            first = await publish(history_of(here), b"old", brief)
            await self.let_pass(0.65 * self.short_ttl)
            young = await publish(history_of(here), b"young", brief)
            await self.let_pass(0.65 * self.short_ttl)
            for page in (
                await history_of(there).read_after(ROOM, brief, 0, 10),
                await history_of(there).read_before(ROOM, brief, young.offset + 1, 10),
            ):
                assert contents(page) == [(young.offset, b"young")]
                assert first.offset <= page.start < young.offset
                assert 0.6 * self.short_ttl <= page.kept[0].age <= self.short_ttl
            await self.let_pass(0.65 * self.short_ttl)
            page = await history_of(there).read_after(ROOM, brief, 0, 10, seen=first)
            assert_ends(page, history_of(there), young)
            assert page.kept == ()
            assert page.start >= young.offset
            new = await publish(history_of(there), b"new", brief)
            assert new.epoch == first.epoch
            assert new.offset > page.position.offset

    async def test_who_does_not_know_how_much_is_kept_follows_the_last_who_did(self) -> None:
        async with self.nodes(2) as (here, there), listening(history_of(here)) as channel:
            assert await history_of(there).publish(ROOM, b"nowhere", None) is None
            page = await history_of(here).read_after(ROOM, History(2), None, 1)
            for number in range(1, 4):
                position = await publish(history_of(there), b"%d" % number, None)
                assert position.epoch == page.position.epoch
                kept = kept_of(await channel.receive())
                assert (position_of(kept), kept.payload) == (position, b"%d" % number)
            page = await history_of(here).read_after(ROOM, History(2), 0, 10)
            assert [kept.payload for kept in page.kept] == [b"2", b"3"]

    # -- which room, and which publication -------------------------------------------------------------

    async def test_rooms_are_separate_whatever_their_names(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            store = history_of(there)
            channels = {name: await stack.enter_async_context(listening(store, name)) for name in NAMES}
            for name in NAMES:
                assert await history_of(here).publish(name, name.encode(), HISTORY, "the same id in each") is not None
            for name, channel in channels.items():
                kept = kept_of(await channel.receive())
                assert kept.payload == name.encode()
                assert contents(await store.read_after(name, HISTORY, 0, 10)) == [(kept.offset, kept.payload)]
                assert kept.offset == 1 or not store.dense_offsets

    async def test_rooms_with_and_without_a_history_are_different_ones(self) -> None:
        async with self.nodes(2) as (here, there):
            async with subscribed(there, ROOM, CAPACITY) as passing, listening(history_of(there)) as kept:
                await here.publish(ROOM, b"passing", "id")
                await history_of(here).publish(ROOM, b"kept", HISTORY, "id")
                assert await passing.receive() == b"passing"
                assert kept_of(await kept.receive()).payload == b"kept"
                await here.publish(ROOM, END)
                assert await passing.receive() == END
            assert await read_forward(history_of(here)) == [b"kept"]

    async def test_publication_id_that_was_used_does_nothing_again(self) -> None:
        async with self.nodes(2) as (here, there), listening(history_of(there)) as channel:
            first = await history_of(here).publish(ROOM, b"once", HISTORY, "a")
            assert await history_of(here).publish(ROOM, b"other", HISTORY, "b") != first
            for node in (here, there):
                assert await history_of(node).publish(ROOM, b"twice", HISTORY, "a") == first
            assert await history_of(here).publish(ROOM, b"twice", None, "a") == first
            await history_of(here).publish(ROOM, END, HISTORY)
            assert [kept_of(await channel.receive()).payload for _ in range(3)] == [b"once", b"other", END]
            assert await read_forward(history_of(there)) == [b"once", b"other", END]

    async def test_publication_id_that_is_used_by_several_at_once_goes_out_once(self) -> None:
        async with self.nodes(2) as nodes, listening(history_of(nodes[0])) as channel:
            positions: list[Position | None] = []

            async def publish(node: Backplane) -> None:
                positions.append(await history_of(node).publish(ROOM, b"once", HISTORY, "id"))

            async with trio.open_nursery() as nursery:
                for node in (*nodes, *nodes):
                    nursery.start_soon(publish, node)
            kept = kept_of(await channel.receive())
            assert positions == [position_of(kept)] * 4
            assert await read_forward(history_of(nodes[1])) == [b"once"]

    # -- full, and cancelled -----------------------------------------------------------------------

    async def test_what_a_full_channel_loses_is_told_and_can_be_read(self) -> None:
        async with self.nodes(2) as (here, there), listening(history_of(here), max_publications=4) as channel:
            start = await end_of(history_of(here))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_numbers, history_of(there), 50)
                await trio.testing.wait_all_tasks_blocked()
                await follow(history_of(here), channel, start, 50)

    async def test_subscribing_can_be_cancelled_at_any_moment(self) -> None:
        async with self.nodes(1) as (node,):
            store = history_of(node)
            for step in range(40):
                with make_channel(CAPACITY) as channel:
                    with cancel_at_step(step) as scope:
                        async with store.subscribe(ROOM, channel):
                            await store.publish(ROOM, b"to itself", HISTORY)
                            await channel.receive()
                    waiting = len(channel)
                    async with listening(store) as fresh:
                        position = await store.publish(ROOM, b"a", HISTORY)
                        kept = kept_of(await fresh.receive())
                        assert position == position_of(kept)
                    assert len(channel) == waiting, "a subscription is left behind"
                if not scope.cancelled_caught:
                    break

    async def test_publishing_can_be_cancelled_at_any_moment_and_tried_again(self) -> None:
        async with self.nodes(1) as (node,):
            store = history_of(node)
            for step in range(40):
                room = f"{ROOM}/{step}"
                async with listening(store, room) as wide, listening(store, room, max_publications=2) as narrow:
                    start = await end_of(store, room)
                    with cancel_at_step(step) as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(publish_with_ids, store, room, range(5))
                            nursery.start_soon(publish_with_ids, store, room, range(5, 10))
                            await trio.testing.wait_all_tasks_blocked()
                            scope.cancel()  # they wait for the narrow one, or for the broker
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(publish_with_ids, store, room, range(10))
                        for each in (narrow, wide):
                            nursery.start_soon(follow, store, each, start, 10, room)
                    payloads = await read_forward(store, room)
                    assert sorted(payloads) == [b"%d" % number for number in range(10)], "not each of them once"
