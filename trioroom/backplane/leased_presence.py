"""Rows of who is present that go with their node's lease: what a seat and a store of them are, whatever the broker.

The choice is told in docs/decisions/0009-presence-by-leases.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Generic, TypeVar

import trio

from trioroom.backplane.background import run_in_background
from trioroom.backplane.leases import Leases
from trioroom.backplane.own_rows import OwnRows
from trioroom.backplane.refreshing import Refreshing
from trioroom.backplane.removals import Removals


class LeasedSeat(ABC):
    """A `PresenceSeat`. ``number`` tells it from others of this node; ``broker`` is its name in the log."""

    def __init__(self, broker: str, leases: Leases, number: int, interval: float) -> None:
        self.own = OwnRows(broker, f"{leases.node}.{number}", interval)
        """What is ours, and under which names."""
        self.nodes: set[str] = set()
        """Of others that have rows here."""
        self._leases = leases
        self._number = number
        self._reading = Refreshing(broker, self.read)

    def put(self, user: str, info: bytes) -> None:
        """See `PresenceSeat`."""
        self.own.put(user, info)

    def remove(self, user: str) -> None:
        """See `PresenceSeat`."""
        self.own.remove(user)

    def follow_node(self) -> None:
        """If the node is another one now, be so too."""
        self.own.rename(f"{self._leases.node}.{self._number}")

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.own.run, self._write, self._remove)
            nursery.start_soon(self._reading.run)

    @abstractmethod
    async def read(self) -> None:
        """Learn all rows anew, and tell the listener. Raises `BackplaneError`."""

    @abstractmethod
    async def _write(self, seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        """See `trioroom.backplane.own_rows.Write`."""

    @abstractmethod
    async def _remove(self, seat: str) -> None:
        """See `trioroom.backplane.own_rows.Remove`."""


Seat = TypeVar("Seat", bound=LeasedSeat)


class LeasedPresence(ABC, Generic[Seat]):
    """The seats of this node. `run` keeps its lease while there are any."""

    def __init__(self, broker: str, leases: Leases) -> None:
        self._leases = leases
        self._removals = Removals(broker, self._remove, leases.give_up_id)
        self._seats: dict[Seat, None] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def _held(self, seat: Seat, table: bytes) -> AsyncIterator[Seat]:
        """Entered when it has been read, after the broker has confirmed that it listens; left, its rows go."""
        await seat.read()
        self._seats[seat] = None
        self._leases.look_soon()  # from now on it is kept
        try:
            async with run_in_background(seat.run):
                yield seat
        finally:
            del self._seats[seat]
            await self._removals.close(table, seat.own.names)

    @abstractmethod
    async def _remove(self, table: bytes, seat: str) -> None:
        """All rows of a seat in that table. Raises `BackplaneError`."""

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._removals.run)
            nursery.start_soon(self._keep_lease)

    @abstractmethod
    async def _keep_lease(self) -> None:
        """Until cancelled, and do what a look at the leases asks for."""
