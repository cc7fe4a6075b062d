"""Rows of seats that are closed: removed at once, or when the broker is back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

import trio

from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
CLOSE_TIMEOUT: Final = 2.0  # seconds that who closes a seat waits for the broker
MAX_OWED: Final = 1_000  # seats, of some 300 bytes each; a node with more costs one write of all its rows
AT_ONCE: Final = 100  # attempts, as one by one each would wait for the server of a cluster that is away


class Removals:
    """What the broker still has of seats that are closed. As long as our node lives nobody else would remove it.

    ``remove`` takes a table and a seat, and raises `BackplaneError`. ``give_up_id`` is called when that is too much to
    remember: the node is to become another one, so that the lease of this one ends and the others remove all that is
    left of it.
    """

    def __init__(
        self, broker: str, remove: Callable[[bytes, str], Awaitable[None]], give_up_id: Callable[[], None]
    ) -> None:
        """``broker`` is its name in the log."""
        self._broker = broker
        self._remove = remove
        self._give_up_id = give_up_id
        self._owed: dict[tuple[bytes, str], None] = {}  # table and seat, in the order in which they are tried
        self._given_up = 0  # ids
        self._added = trio.Event()
        self._refusal = ""  # the last one that was logged

    async def close(self, table: bytes, seats: Sequence[str]) -> None:
        """The rows of ``seats`` go now if the broker takes no longer than `CLOSE_TIMEOUT`, and else by `run`."""
        left, given_up = [(table, seat) for seat in seats], self._given_up
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            while left and await self._try(*left[0]):
                del left[0]
        for each in left:
            if self._given_up == given_up:  # else others remove it, with all that closed at the same time
                self._owe(each)

    def _owe(self, each: tuple[bytes, str]) -> None:
        if len(self._owed) < MAX_OWED:
            self._owed[each] = None
            self._added.set()
            return
        what = "%s: more than %d rooms with presence were closed and are still to be removed at the broker"
        log.warning(what, self._broker, MAX_OWED)
        self._owed.clear()
        self._given_up += 1
        self._give_up_id()

    async def run(self) -> None:
        """Until cancelled, remove what is owed; one that fails goes behind the others."""
        while True:
            await self._added.wait()
            self._added = trio.Event()
            while self._owed:
                some = list(islice(self._owed, AT_ONCE))
                async with trio.open_nursery() as nursery:
                    for each in some:
                        nursery.start_soon(self._settle, each)
                if any(each in self._owed for each in some):
                    await trio.sleep(RETRY_INTERVAL)

    async def _settle(self, each: tuple[bytes, str]) -> None:
        removed = await self._try(*each)
        if each in self._owed:  # it may have been given up meanwhile
            del self._owed[each]
            if not removed:
                self._owed[each] = None

    async def _try(self, table: bytes, seat: str) -> bool:
        """Whether it has been done."""
        try:
            await self._remove(table, seat)
        except BackplaneUnavailable:
            return False  # the link has said so
        except BackplaneError as exc:
            if str(exc) != self._refusal:
                self._refusal = str(exc)
                log.warning("%s: %s; trying again", self._broker, exc)
            return False
        return True
