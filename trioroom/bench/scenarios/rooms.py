"""``rooms``: many small rooms; the first member of each publishes, and again when all others have got it."""

from __future__ import annotations

import time
from typing import ClassVar

from trioroom.bench.scenarios.base import LOAD, OPEN, SETTLE, WARM_UP, Play


class Rooms(Play):
    """Deliveries a second over all rooms. A room is in one process."""

    steps: ClassVar = (OPEN, WARM_UP, SETTLE, LOAD)

    def room_of(self, number: int) -> int:
        """So many members, one after another, are one room."""
        return (self.share.first + number) // self.options.room_size

    def warm_up(self) -> None:
        """Find out that all members are in their rooms."""
        size = self.options.room_size
        publishers = {d: number // size for d, number in self.swarm.members.items() if number % size == 0}
        self._publishers = {room: d for d, room in publishers.items()}
        silent = {d for d, number in self.swarm.members.items() if number % size and number // size in self._publishers}

        def knock() -> None:
            for room in {self.swarm.members[descriptor] // size for descriptor in silent}:
                self.swarm.send(self._publishers[room], self._message(room))

        self.knock_until_heard(silent, knock, lambda: True)

    def load(self) -> None:
        """Publish into all rooms at once; each then goes at its own pace."""
        rooms = self.share.members // self.options.room_size
        self._got = [0] * (max(self.swarm.members, default=0) + 1)  # messages of each member, by descriptor
        self._sent = [0.0] * (rooms * self.options.in_flight)  # when, of each room's messages in flight
        self._published, self._done, self._arrivals = [0] * rooms, [0] * rooms, [0] * rooms
        self._waited_for = [0] * rooms
        for number in self.swarm.members.values():
            room, place = divmod(number, self.options.room_size)
            self._waited_for[room] += place > 0
        self._under_way = 0
        self._deadline = time.monotonic() + self.options.duration
        messages = self.options.messages
        self._left = None if messages is None else messages * self.share.members // self.options.members
        self.swarm.on_messages = self._receive
        self.swarm.on_lost = self._lose
        for room in self._publishers:
            for _ in range(self.options.in_flight):
                self._publish(room)
        self.drive(lambda: self._under_way <= 0, "the rooms' messages")
        self.swarm.on_lost = lambda descriptor, number: None

    def _message(self, room: int) -> bytes:
        return self.message_to(self.room_of(room * self.options.room_size))

    def _publish(self, room: int) -> None:
        now = time.monotonic()
        if now >= self._deadline or self._left == 0 or not self._waited_for[room]:
            return
        if self._left is not None:
            self._left -= 1
        window = self.options.in_flight
        self._sent[room * window + self._published[room] % window] = now
        self._published[room] += 1
        self._under_way += 1
        self.tally.counts.sent += 1
        self.swarm.send(self._publishers[room], self._message(room))

    def _receive(self, descriptor: int, count: int) -> None:
        now = time.monotonic()
        self.tally.counts.received += count
        room, place = divmod(self.swarm.members[descriptor], self.options.room_size)
        if not place:
            return  # whether the publisher gets its own is the room's to say
        got, window = self._got[descriptor], self.options.in_flight
        self._got[descriptor] = got + count
        for message in range(got, got + count):
            self.tally.latencies.add(now - self._sent[room * window + message % window])
        self._arrivals[room] += count
        while self._done[room] < self._published[room] and self._arrivals[room] >= self._waited_for[room]:
            self._arrivals[room] -= self._waited_for[room]
            self.tally.whole.add(now - self._sent[room * window + self._done[room] % window])
            self._done[room] += 1
            self._under_way -= 1
            self._publish(room)

    def _lose(self, descriptor: int, number: int) -> None:
        """A room that has lost somebody is measured no more."""
        room = number // self.options.room_size
        self._waited_for[room] = 0
        self._under_way -= self._published[room] - self._done[room]
        self._published[room] = self._done[room]
