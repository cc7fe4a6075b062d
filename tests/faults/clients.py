"""Members that use our client: readers of many rooms over one connection, and publishers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

import trioroom
from tests.faults.crowd import PUBLISH_INTERVAL, Crowd
from tests.faults.records import Joined, Received, Record, Told
from tests.faults.rooms import kind_of, token_for
from trioroom._core.causes import first_of
from trioroom.client import Client, ClientRoom, Gap, Message, Rejoined
from trioroom.client.reconnect import Backoff

_BACKOFF: Final = Backoff(first=0.1, most=1.0, settled=5.0)
_PAUSE: Final = 0.1
"""Seconds before one that was put out comes again."""
_TOKEN_LASTS: Final = 15.0
"""Seconds; a client renews what lasts longer than 10."""
_MAX_INBOX: Final = 100_000
"""Events: what is missing is for the server to tell."""
_PATIENCE: Final = 40.0
"""Seconds that a last publication may take, with no fault any more."""


async def be_client(crowd: Crowd, who: str, node: int, rooms: Sequence[str], publishes: bool) -> None:
    """Be in these rooms, until cancelled."""
    url = f"ws://127.0.0.1:{crowd.world.nodes[node].port}/"
    token = partial(token_for, who, _TOKEN_LASTS)
    while True:
        async with trioroom.connect(
            url, token=token, connect_timeout=3.0, backoff=_BACKOFF, max_inbox=_MAX_INBOX
        ) as client:
            async with trio.open_nursery() as nursery:
                for room in rooms:
                    nursery.start_soon(_be_in, crowd, client, who, node, room, publishes)
        await trio.sleep(_PAUSE)


async def _be_in(crowd: Crowd, client: Client, who: str, node: int, room: str, publishes: bool) -> None:
    """As long as the client lasts, a new record each time that the room has ended."""
    shows_list = bool(kind_of(room).presence) and not publishes
    while client.state.name != "closed":
        record = crowd.open_record(who, node, room, "client")
        try:
            async with client.join(room, presence=shows_list) as joined:
                if shows_list:
                    crowd.lists[room, node] = joined
                record.entries.append(Joined(trio.current_time(), str(joined.state)))
                async with trio.open_nursery() as nursery:
                    if publishes:
                        nursery.start_soon(publish, crowd, joined, crowd.new_name(who))
                    await _read(joined, record)
        except* (trioroom.TrioroomError, trio.ClosedResourceError, OSError) as group:
            crowd.close_record(record, _name_of(group))
        await trio.sleep(_PAUSE)


async def _read(joined: ClientRoom, record: Record) -> None:
    async for event in joined.events():
        now = trio.current_time()
        match event:
            case Message(data, _, position):
                record.entries.append(Received(now, key_of(data), position))
            case Gap(reason, lost):
                record.entries.append(Told(now, reason, lost))
            case Rejoined(recovered, state):
                record.entries.append(Joined(now, str(state), recovered=recovered))


async def publish(crowd: Crowd, joined: ClientRoom, publisher: str) -> None:
    """Number after number, and one more when all is to be quiet."""
    chance = crowd.chance(publisher)
    number = 0
    crowd.publishing.add(publisher)
    try:
        while True:
            last = crowd.quiet.is_set()
            number += 1
            begun = crowd.publication(publisher, number, joined.name)
            with trio.move_on_after(_PATIENCE) as scope:
                await joined.publish(padded(begun.key, chance.randrange(500)))
                begun.acknowledged = trio.current_time()
            if last and scope.cancelled_caught:
                crowd.trouble(f"{publisher} could not publish in {joined.name} for {_PATIENCE:g} s after all faults")
            if last:
                return
            with trio.move_on_after(chance.expovariate(1 / PUBLISH_INTERVAL)):
                await crowd.quiet.wait()
    finally:
        crowd.publishing.discard(publisher)


def padded(key: str, size: int) -> str:
    """What is published."""
    return f"{key}:{'.' * size}"


def key_of(data: object) -> str:
    """Of what has come."""
    return ":".join(str(data).split(":")[:2])


def _name_of(group: BaseExceptionGroup[BaseException]) -> str:
    error = first_of(group)
    return f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
