"""The rows of a seat, on their way to the broker: what has changed is written at most once per interval."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import trio

from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
AT_ONCE: Final = 1_000
"""Rows of one write: it holds up all others at the server."""

Write = Callable[[str, Mapping[str, bytes], Sequence[str]], Awaitable[None]]
"""Of these rows of a seat, and those that are removed; raises `BackplaneError`."""
Remove = Callable[[str], Awaitable[None]]
"""All rows of a seat; raises `BackplaneError`."""


class OwnRows:
    """What ought to be at the broker; `run` brings it in line. ``broker`` is its name in the log."""

    def __init__(self, broker: str, seat: str, interval: float) -> None:
        self.names = [seat]
        """What the seat was called under each id that the node has had; the last one counts."""
        self.rows: dict[str, bytes] = {}
        """By user."""
        self.dirty: dict[str, None] = {}
        """Users whose rows may be other ones there."""
        self._broker = broker
        self._interval = interval
        self._changed = trio.Event()

    def put(self, user: str, info: bytes) -> None:
        """See `PresenceSeat`."""
        self.rows[user] = info
        self.mark((user,))

    def remove(self, user: str) -> None:
        """See `PresenceSeat`."""
        if self.rows.pop(user, None) is not None:
            self.mark((user,))

    def mark(self, users: Iterable[str]) -> None:
        """Their rows are to be written, or removed; and those of former names."""
        self.dirty.update(dict.fromkeys(users))
        self._changed.set()

    def rename(self, seat: str) -> None:
        """Write everything again under that name; what was under the old one goes then."""
        if seat != self.names[-1]:
            self.names.append(seat)
            self.mark(self.rows)

    def compare(self, there: Mapping[str, bytes]) -> set[str]:
        """Users whose rows there are not what they ought to be."""
        return {user for user in {*self.rows, *there} if self.rows.get(user) != there.get(user)}

    async def run(self, write: Write, remove: Remove) -> None:
        """Until cancelled, bring the broker in line, at most once per interval."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            try:
                changed = list(self.dirty)  # what comes meanwhile has to wait: it may come each time
                former = self.names[:-1]  # so does the name of now if it becomes one: its rows are still to be renamed
                for first in range(0, len(changed), AT_ONCE):
                    await self._write_some(write, changed[first : first + AT_ONCE])
                for name in former:
                    await remove(name)
                    self.names.remove(name)
            except BackplaneUnavailable:
                self._changed.set()
                await trio.sleep(RETRY_INTERVAL)
            except BackplaneError as exc:
                log.warning("%s: %s; trying again", self._broker, exc)
                self._changed.set()
                await trio.sleep(10 * RETRY_INTERVAL)
            await trio.sleep(self._interval)

    async def _write_some(self, write: Write, users: Sequence[str]) -> None:
        for user in users:
            del self.dirty[user]
        put = {user: self.rows[user] for user in users if user in self.rows}
        try:
            await write(self.names[-1], put, [user for user in users if user not in put])
        except BaseException:
            self.dirty.update(dict.fromkeys(users))  # it may be there or not
            raise
