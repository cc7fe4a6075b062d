"""Members that stay: publishers who count, and readers who notice when a number is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs
import trio

import trioroom
from trioroom.client import ClientRoom, Gap, Message, Rejoined

PUBLISH_INTERVAL = 0.5  # seconds, in each room
_RETRY_DELAY = 1.0


@attrs.define
class Record:
    """What the room's publisher knows, and what happened to its readers."""

    published: int = 0
    """The last number that may have gone out."""
    unsure: set[int] = attrs.field(factory=set)
    """Numbers of publications that were refused or not answered, which may be missing."""
    counts: Counter[str] = attrs.field(factory=Counter)


@attrs.define
class Reader:
    """Notices what does not follow on what it has."""

    record: Record
    last: int | None = None
    _told: bool = False

    def take(self, event: object) -> None:
        """One event of the room, in order."""
        counts = self.record.counts
        if isinstance(event, Gap):
            counts[f"gaps told: {event.reason}"] += 1
            self._told = True
        elif isinstance(event, Rejoined):
            counts["rejoined, recovered" if event.recovered else "rejoined, not recovered"] += 1
            self._told = self._told or not event.recovered
        elif isinstance(event, Message):
            assert isinstance(event.data, int)
            self._take_number(event.data)

    def _take_number(self, number: int) -> None:
        counts = self.record.counts
        counts["messages read"] += 1
        if self.last is not None and not self._told:
            missing = {*range(self.last + 1, number)} - self.record.unsure
            counts["MISSING AND NOT TOLD"] += len(missing)
            counts["READ TWICE"] += number <= self.last
        elif self.last is not None:
            counts["lost, and told"] += max(0, number - self.last - 1)
            counts["again after a gap"] += number <= self.last
        self.last = number if self.last is None else max(self.last, number)
        self._told = False


async def publish(url: str, room: str, record: Record) -> None:
    """Number after number, each once it is known what became of the one before."""
    async with trioroom.connect(url) as client:
        while True:
            try:
                async with client.join(room) as joined:
                    await _count_on(joined, record)
            except trioroom.TrioroomError as exc:
                record.counts[f"publishers put out: {name_of(exc)}"] += 1
                await trio.sleep(_RETRY_DELAY)


async def _count_on(joined: ClientRoom, record: Record) -> None:
    while True:
        record.published += 1
        record.unsure.add(record.published)
        try:
            await joined.publish(record.published)
        except (trioroom.RequestRefused, trioroom.Unconfirmed) as exc:
            record.counts[f"publications not confirmed: {name_of(exc)}"] += 1
            await trio.sleep(_RETRY_DELAY)
        else:
            record.unsure.discard(record.published)
            record.counts["published"] += 1
        await trio.sleep(PUBLISH_INTERVAL)


async def read(url: str, room: str, record: Record) -> None:
    """All that comes, over all the lost connections."""
    while True:
        reader = Reader(record)  # a new one knows of nothing before
        try:
            async with trioroom.connect(url) as client, client.join(room) as joined:
                async for event in joined.events():
                    reader.take(event)
        except trioroom.TrioroomError as exc:
            record.counts[f"readers put out: {name_of(exc)}"] += 1
            await trio.sleep(_RETRY_DELAY)


def name_of(error: trioroom.TrioroomError) -> str:
    """Short, with the code where there is one."""
    code = getattr(error, "code", "")
    return f"{type(error).__name__} {code}".strip()


async def stay(urls: Sequence[str], rooms: int, readers: int, counts: Counter[str]) -> None:
    """``rooms`` rooms with ``readers`` readers each, over all servers, until cancelled."""
    async with trio.open_nursery() as nursery:
        for number in range(rooms):
            room, record = f"kept/{number}", Record(counts=counts)
            nursery.start_soon(publish, urls[number % len(urls)], room, record)
            for reader in range(readers):
                nursery.start_soon(read, urls[reader % len(urls)], room, record)
