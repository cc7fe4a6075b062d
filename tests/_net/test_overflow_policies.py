"""What a member that does not keep up gets, under each policy: which messages, where the gaps, when the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom import Lag, Message, Overflow
from trioroom._wire.frames import Close, Event
from trioroom.testing import V1Peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import EventsUntilTheEnd, OpenPeer, OpenV1

SETTINGS = trioroom.Settings(max_outbox_messages=6, close_timeout=3, leave_timeout=1, ping_interval=math.inf)
KEYS = "abbabca"
"""Of the messages 0 to 6; a room that keeps the latest keeps 4, 5 and 6."""
CLOSED = "closed"
STORIES: list[tuple[Overflow, list[object]]] = [
    (Overflow.DISCONNECT, [CLOSED]),
    (Overflow.DROP_OLDEST, [("gap", 3), "4", "5", "6"]),
    (Overflow.DROP_NEWEST, ["1", "2", "3", ("gap", 3)]),
    (Overflow.LATEST, [("gap", 3), "4", "6", "5"]),
]
by_policy = pytest.mark.parametrize(("policy", "story"), STORIES, ids=lambda value: getattr(value, "value", ""))


class House:
    """An app whose room at ``/{policy}/{name}`` has that policy, and may keep three messages for a member."""

    def __init__(self) -> None:
        self.joined: list[trioroom.Member] = []
        self.lags: list[Lag] = []
        """Of each member that has said something, then."""
        self.let_in = trio.Event()
        """Joiners of rooms called ``waiting`` wait for it."""
        self.app = trioroom.App()
        house = self

        class Hall(trioroom.Room):
            max_outbox_messages = 3

            async def on_join(self, member: trioroom.Member) -> object:
                house.joined.append(member)
                if self.params["name"] != "waiting":
                    return None
                await house.let_in.wait()
                return "state"

            async def on_message(self, member: trioroom.Member, message: Message) -> None:
                house.lags.append(member.lag)

        for policy in Overflow:
            name = policy.value
            self.app.route(f"{name}/{{name}}", type(name, (Hall,), {"overflow": policy}))

    @property
    def member(self) -> trioroom.Member:
        (member,) = self.joined
        return member

    async def publish(self, *numbers: int) -> None:
        """Messages of those numbers to the member's room, with their keys; see them through."""
        for number in numbers:
            await self.member.room.publish(str(number), key=KEYS[number])
        await wait_all_tasks_blocked()

    async def overflow(self) -> None:
        """One message on its way to a peer that does not read, and six that wait for it."""
        await self.publish(0)
        await self.publish(*range(1, 7))


@pytest.fixture
def house() -> House:
    return House()


async def read_up(peer: V1Peer, room: str) -> list[object]:
    """Messages of ``room`` and gaps in it, until the last one of a story, or the end."""
    story: list[object] = []
    while True:
        with trio.move_on_after(1) as waiting:
            try:
                envelope = await peer.receive()
            except trioroom.ConnectionClosed as closed:
                return [*story, CLOSED if closed.code == 4108 else closed]
            assert envelope["room"] == room
            if envelope["type"] == "gap":
                assert envelope["reason"] == "overflow"
                story.append(("gap", envelope["lost"]))
            elif envelope["type"] == "ok":
                story.append(envelope["state"])
            else:
                story.append(envelope["data"])
        if waiting.cancelled_caught:
            return story


def in_plain(story: list[object]) -> list[Event]:
    """Of a story what a plain peer gets, but for its end."""
    return [Message(data) for data in story if isinstance(data, str) and data != CLOSED]


# -- a member that stops reading, and reads again ------------------------------------------------------


@by_policy
async def test_v1_member_gets_what_its_room_says_and_learns_what_it_has_lost(
    house: House, open_narrow_v1: OpenV1, autojump_clock: MockClock, policy: Overflow, story: list[object]
) -> None:
    room = f"{policy.value}/a"
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_v1(server) as peer:
        await peer.join(room)
        await house.overflow()
        assert await read_up(peer, room) == ["0", *story]
        if policy is not Overflow.DISCONNECT:
            await house.publish(3, 5)
            assert await read_up(peer, room) == ["3", "5"], "it is told once"


@pytest.mark.parametrize(("policy", "story"), [each for each in STORIES if each[0] is not Overflow.DISCONNECT])
async def test_next_membership_begins_behind_all_of_the_one_before(
    house: House, open_narrow_v1: OpenV1, autojump_clock: MockClock, policy: Overflow, story: list[object]
) -> None:
    room = f"{policy.value}/a"
    async with (
        open_test_server(house.app, SETTINGS) as server,
        open_narrow_v1(server) as peer,
        open_v1_peer(server) as stays,  # so that the room does not end in between
    ):
        await peer.join(room)
        await house.overflow()
        await stays.join(room)
        await peer.send({"type": "leave", "id": "l", "room": room}, {"type": "join", "id": "j", "room": room})
        await wait_all_tasks_blocked()
        await house.joined[0].room.publish("new", key="a")
        received = []
        with trio.move_on_after(1):
            while True:
                received.append(await peer.receive())
        told = [each.get("id") or each.get("data") or ("gap", each["lost"]) for each in received]
        assert told == ["0", *story, "l", "j", "new"]


@by_policy
async def test_plain_member_gets_what_its_room_says_and_no_stray_bytes(
    house: House,
    open_narrow_peer: OpenPeer,
    events_until_the_end: EventsUntilTheEnd,
    autojump_clock: MockClock,
    policy: Overflow,
    story: list[object],
) -> None:
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_peer(server, f"/{policy.value}/a") as peer:
        await wait_all_tasks_blocked()
        await house.overflow()
        house.member.leave("enough")
        *messages, end = await events_until_the_end(peer)
        assert messages == [Message("0"), *in_plain(story)]
        assert isinstance(end, Close)
        assert end.code == (4108 if policy is Overflow.DISCONNECT else 1000)


@by_policy
async def test_messages_to_one_member_are_bounded_alike(
    house: House, open_narrow_v1: OpenV1, autojump_clock: MockClock, policy: Overflow, story: list[object]
) -> None:
    room = f"{policy.value}/a"
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_v1(server) as peer:
        await peer.join(room)
        for number, key in enumerate(KEYS):
            house.member.send(str(number), key=key)
            await wait_all_tasks_blocked()
        assert await read_up(peer, room) == ["0", *story]


@by_policy
async def test_deliveries_of_the_room_add_up(
    house: House, open_narrow_v1: OpenV1, autojump_clock: MockClock, policy: Overflow, story: list[object]
) -> None:
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_v1(server) as peer:
        await peer.join(f"{policy.value}/a")
        room = house.member.room
        await house.overflow()
        counted = room.statistics().deliveries
        assert (counted.offered, counted.sent) == (7, 0)
        assert counted.queued == (1 if policy is Overflow.DISCONNECT else 4)
        await read_up(peer, f"{policy.value}/a")
        counted = room.statistics().deliveries
        sent = sum(isinstance(event, str) for event in ["0", *story] if event != CLOSED)
        assert (counted.offered, counted.sent, counted.queued) == (7, sent, 0)
        assert counted.dropped + counted.unsent == 7 - sent
        assert counted.unsent == 0 or policy is Overflow.DISCONNECT


@pytest.mark.parametrize("policy", Overflow)
async def test_handler_sees_how_far_a_member_is_behind(
    house: House, open_narrow_peer: OpenPeer, autojump_clock: MockClock, policy: Overflow
) -> None:
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_peer(server, f"/{policy.value}/a") as peer:
        await wait_all_tasks_blocked()

        async def lag() -> Lag:
            await peer.send("how far?")
            await wait_all_tasks_blocked()
            return house.lags[-1]

        assert await lag() == Lag(0, 0, 0.0)
        await house.publish(0)
        await trio.sleep(2)
        await house.publish(2, 3)
        await trio.sleep(1)
        await house.publish(5)
        assert await lag() == Lag(3, 3 * len(b"..x"), 3.0), "the oldest is the one that is being sent"
        await peer.receive()
        await wait_all_tasks_blocked()
        assert await lag() == Lag(0, 0, 1.0), "all are being sent"
        for _ in range(3):
            await peer.receive()
        await wait_all_tasks_blocked()
        assert await lag() == Lag(0, 0, 0.0)


# -- while on_join runs ------------------------------------------------------------------------------


@by_policy
async def test_v1_joiner_gets_its_state_and_then_what_was_kept_for_it(
    house: House, open_narrow_v1: OpenV1, autojump_clock: MockClock, policy: Overflow, story: list[object]
) -> None:
    """The narrow pipe has all of it wait twice: held for the joiner, then in its connection's outbox."""
    room = f"{policy.value}/waiting"
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_v1(server) as peer:
        await peer.send({"type": "join", "id": 1, "room": room})
        await wait_all_tasks_blocked()
        await house.publish(*range(1, 7))
        house.let_in.set()
        await wait_all_tasks_blocked()
        assert await read_up(peer, room) == (story if policy is Overflow.DISCONNECT else ["state", *story])


@by_policy
async def test_plain_joiner_gets_its_state_and_then_what_was_kept_for_it(
    house: House,
    open_narrow_peer: OpenPeer,
    events_until_the_end: EventsUntilTheEnd,
    autojump_clock: MockClock,
    policy: Overflow,
    story: list[object],
) -> None:
    path = f"/{policy.value}/waiting"
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_peer(server, path) as peer:
        await wait_all_tasks_blocked()
        await house.publish(*range(1, 7))
        house.let_in.set()
        await wait_all_tasks_blocked()
        house.member.leave("enough")
        *messages, end = await events_until_the_end(peer)
        assert messages == ([] if policy is Overflow.DISCONNECT else [Message("state"), *in_plain(story)])
        assert isinstance(end, Close)
        assert end.code == (4108 if policy is Overflow.DISCONNECT else 1000)


async def test_handler_of_a_joiner_sees_what_is_held_for_it(
    house: House, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    async with open_test_server(house.app, SETTINGS) as server, open_narrow_peer(server, "/drop_newest/waiting"):
        await wait_all_tasks_blocked()
        await house.publish(1)
        await trio.sleep(2)
        await house.publish(2, 3, 4)
        assert house.member.lag == Lag(3, 3 * len(b"..x"), 2.0)
        house.let_in.set()
