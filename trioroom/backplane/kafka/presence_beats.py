"""Saying again and again that this node lives, and what follows where others do not say so any more."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import trio

from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.presence_follower import Follower
from trioroom.backplane.kafka.presence_records import Beat, Dead, Statement
from trioroom.backplane.kafka.presence_seat import Write
from trioroom.backplane.kafka.presence_watch import Watch
from trioroom.backplane.kafka.records import UNKNOWN_OFFSET, Place
from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.backplane.own_rows import AT_ONCE
from trioroom.backplane.removals import CLOSE_TIMEOUT
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")


class Beats:
    """`run` keeps them up. ``append`` is for what is not to wait for what others write, ``write`` for what is long."""

    def __init__(
        self, log: Log, follower: Follower, append: Callable[[Sequence[Statement]], Awaitable[Place]], write: Write
    ) -> None:
        self.node = secrets.token_hex(8)
        """Our id; another one after others have taken this one for dead."""
        self._log = log
        self._follower = follower
        self._append = append
        self._write = write
        self._lease = log.settings.presence_lease
        self._watch = Watch(self._lease)
        self._soon = trio.Event()
        self._came_round = trio.Event()

    def change_id(self) -> None:
        """Go on as another node. The beats of this one end, and others take back what it has written."""
        self.node = secrets.token_hex(8)
        self._soon.set()

    def begin(self) -> None:
        """The log was read from its begin."""
        self._watch.begin(trio.current_time())
        self._soon.set()

    async def run(self) -> None:
        """Until cancelled; then the log is told that this node is gone, if the broker takes no longer than it may."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_beating)
                nursery.start_soon(self._keep_clean)
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    await self._append([Beat(self.node, lives=False)])
                except BackplaneError as exc:
                    log.debug("kafka: cannot say that node %s is gone: %s", self.node, exc)

    async def _keep_beating(self) -> None:
        while True:
            self._soon = trio.Event()
            try:
                if await self._beat():
                    self._came_round.set()
                due = self._watch.due(self._follower.table.nodes, self.node, trio.current_time())
            except BackplaneError as exc:
                log.debug("kafka: node %s cannot say that it lives: %s", self.node, exc)
                due = trio.current_time() + RETRY_INTERVAL
            with trio.move_on_at(due):
                await self._soon.wait()

    async def _beat(self) -> bool:
        """Say that we live, and that others do not if we find them so. Returns whether our beat came round."""
        sent = trio.current_time()
        place = await self._append([Beat(self.node, lives=True)])
        with trio.move_on_after(self._log.settings.timeout) as waiting:
            await self._log.wait_passed(place)
        if waiting.cancelled_caught or place.offset == UNKNOWN_OFFSET or not self._follower.is_whole:
            return False
        self._watch.returned(trio.current_time())
        silent = [name for name in self._watch.silent(self._follower.table.nodes, sent) if name != self.node]
        if silent:
            await self._append([Dead(name, is_dead=True) for name in silent])
        return True

    async def _keep_clean(self) -> None:
        """Apart from beating, as that is not to wait for it."""
        while True:
            await self._came_round.wait()
            self._came_round = trio.Event()
            try:
                await self._clean_up()
            except BackplaneError as exc:
                log.debug("kafka: cannot take back what dead nodes have left: %s", exc)

    async def _clean_up(self) -> None:
        """One of the living does it for all; a lease late, so that who was stopped has read that it is dead."""
        table = self._follower.table
        if self.node != min((name for name, node in table.nodes.items() if node.counts), default=None):
            return
        died_before = trio.current_time() - self._lease
        while left := list(islice(self._follower.table.left_behind(died_before), AT_ONCE)):
            await self._write(left)
            await self._follower.catch_up()
