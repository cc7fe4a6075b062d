"""Who comes for a moment and does harm: slow readers with a flood for them, storms, and one who has all put out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import trio

from tests.faults.clients import padded
from tests.faults.crowd import ROOMS, Crowd
from tests.faults.raw import GONE, RESET_ON_CLOSE, Place, RawPeer, masked, note_close, open_raw, upgrade_of
from tests.faults.records import Publication, Told
from tests.faults.rooms import KINDS, PUT_OUT, SLOW
from trioroom import ConnectionClosed
from trioroom._wire.envelopes import Error, Join, Ok, Publish

_SLOW_BUFFER: Final = 4_096
"""SO_RCVBUF of those who do not read."""
_CATCHING_UP: Final = 4.0
"""Seconds for which they read on afterwards."""
_FLOOD: Final = 300
"""Publications of a flood."""
_TOGETHER: Final = 60
"""Of those, publications that wait for their answers at a time."""
_IN_A_FRAME: Final = 15
_FLOOD_BYTES: Final = 3_000
"""Of each: all together are more than the kernel takes for a peer, and more than `rooms.MOST_WAITING` are left."""
_FIRST_ID: Final = 1_000
"""Of their requests."""
_AT_A_TIME: Final = 30
"""Of a storm."""
_ANSWER_TIMEOUT: Final = 10.0


async def read_slowly(crowd: Crowd, node: int, count: int, stall: float, chance: random.Random) -> None:
    """So many in one room, while somebody floods it."""
    room = chance.choice(ROOMS)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(_read_slowly, crowd, crowd.new_name(f"{SLOW}{number}"), node, room, stall)
        await trio.sleep(0.5)  # until they are in
        await _flood(crowd, node, room)


async def _read_slowly(crowd: Crowd, who: str, node: int, room: str, stall: float) -> None:
    place = Place(crowd, who, node, room, "slow")
    with suppress(*GONE):
        async with open_raw(crowd.world.nodes[node].port, who, receive_buffer=_SLOW_BUFFER) as raw:
            try:
                if await place.join(raw):
                    await trio.sleep(stall)
                    with trio.move_on_after(_CATCHING_UP):
                        await place.read(raw)
                    place.why = "left"
            except ConnectionClosed as closed:
                place.why = str(closed.code)
                note_close(crowd, who, closed)
    if place.record is not None:
        told = any(isinstance(entry, Told) and entry.reason == "overflow" for entry in place.record.entries)
        crowd.count(f"slow readers: {'told of a gap' if told else place.why}")
    place.give_up()


async def _flood(crowd: Crowd, node: int, room: str) -> None:
    """By a member, who reads all of it too."""
    publisher = crowd.new_name("flood")
    place = Place(crowd, publisher, node, room)
    with suppress(*GONE):
        async with open_raw(crowd.world.nodes[node].port, publisher) as raw:
            if await place.join(raw):
                for first in range(1, _FLOOD, _TOGETHER):
                    numbers = range(first, first + _TOGETHER)
                    await _publish(raw, place, [crowd.publication(publisher, number, room) for number in numbers])
                place.why = "left"
    place.give_up()


async def _publish(raw: RawPeer, place: Place, publications: Sequence[Publication]) -> None:
    """Returns when each is answered."""
    pending = {_FIRST_ID + each.number: each for each in publications}
    requests = [_request(id, each) for id, each in pending.items()]
    for first in range(0, len(requests), _IN_A_FRAME):
        await raw.send(*requests[first : first + _IN_A_FRAME])
    while pending:
        envelope = await raw.receive()
        if isinstance(envelope, Ok | Error) and isinstance(envelope.id, int) and envelope.id in pending:
            answered = pending.pop(envelope.id)
            if isinstance(envelope, Ok):
                answered.acknowledged = trio.current_time()
        elif place.take(envelope):
            return


def _request(id: int, publication: Publication) -> Publish:
    data = msgspec.Raw(msgspec.json.encode(padded(publication.key, _FLOOD_BYTES)))
    return Publish(publication.room, data, id)


async def storm(crowd: Crowd, node: int, count: int, chance: random.Random) -> None:
    """So many who join and vanish at once, some in rooms of their own."""
    limit = trio.CapacityLimiter(_AT_A_TIME)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            room = chance.choice((*ROOMS, f"{chance.choice([*KINDS])}/storm-{number % 20}"))
            nursery.start_soon(_vanish, limit, crowd.world.nodes[node].port, f"storm-{number}", room, chance.random())


async def _vanish(limit: trio.CapacityLimiter, port: int, who: str, room: str, luck: float) -> None:
    """Ask to join and be gone: at once, a moment later, or when the answer has begun to come; by a RST or in peace."""
    joining = upgrade_of(who) + masked(Join(1, room))
    async with limit:
        with trio.move_on_after(_ANSWER_TIMEOUT), suppress(*GONE):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(joining[: len(joining) if luck < 0.9 else int(luck * len(joining))])
                if luck < 0.3:
                    await trio.sleep(luck / 10)
                elif luck < 0.6:
                    await stream.receive_some()
                if luck * 10 % 1 < 0.5:
                    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET_ON_CLOSE)


async def put_out_all(crowd: Crowd, node: int, chance: random.Random) -> None:
    """Everybody in a room on one node, but for the one who has it done."""
    room, who = chance.choice(ROOMS), crowd.new_name("steward")
    place = Place(crowd, who, node, room)
    with suppress(*GONE):
        async with open_raw(crowd.world.nodes[node].port, who) as raw:
            if await place.join(raw):
                await raw.send(Publish(room, msgspec.Raw(msgspec.json.encode(PUT_OUT))))
                with trio.move_on_after(1.0):
                    await place.read(raw)
                place.why = "left"
    place.give_up()
