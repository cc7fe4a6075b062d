"""Leases of nodes in the bucket: a key ``node.NODE`` for each, which nobody but its node puts while it lives.

Its payload is how many seconds the lease lasts from then on. When it has ended, others may put a 0 there, on condition
that nothing has been put since: either that succeeds, or the renewal of a node that was only slow. So no node is dead
to one and alive to another, and no clock but the stream's counts. Who has put the 0 removes the rows of the dead, in
all rooms, and then the key; a key that is still there after a while has lost who was to do it, and somebody else does.
"""

from __future__ import annotations

import math
from datetime import datetime
from itertools import islice
from typing import Final

import attrs
import trio

from trioroom.backplane.leases import Leases
from trioroom.backplane.nats.bucket import Bucket, Entry, Put
from trioroom.backplane.nats.presence_table import keys_of_node
from trioroom.backplane.nats.streams import WRONG_LAST_SEQUENCE, JetStreamError
from trioroom.errors import BackplaneUnavailable

_DEAD: Final = b"0"
_ALL: Final = "node.*"
_MAX_LEASE: Final = 86_400.0  # seconds; as the setting
_MAX_DIGITS: Final = 20
_BURIAL: Final = 15.0  # seconds within which who has found a node dead has removed its rows
_ATTEMPTS: Final = 20  # at an answer that has our own renewal: a server of a cluster may be behind
_MAX_DEAD: Final = 1_000
_PAUSE: Final = 0.05  # seconds between two of them


@attrs.frozen
class _Lease:
    """What the key of a node says."""

    node: str
    sequence: int
    time: datetime
    seconds: float
    """From then on; 0 is a node that was found dead."""

    def left(self, now: datetime) -> float:
        """Seconds."""
        return (self.time - now).total_seconds() + self.seconds


def _parse(entry: Entry) -> _Lease:
    text = entry.payload
    try:
        seconds = float(text) if len(text) <= _MAX_DIGITS else 0.0
    except ValueError:
        seconds = 0.0  # somebody else's: it goes as those of the dead do
    if not 0 <= seconds <= _MAX_LEASE:  # also what is no number
        seconds = 0.0
    return _Lease(entry.key.partition(".")[2], entry.sequence, entry.time, seconds)


class NatsLeases(Leases):
    """By the clock of the stream's leader."""

    broker = "nats"

    def __init__(self, bucket: Bucket, lease: float) -> None:
        super().__init__(lease)
        self.dead: dict[str, None] = {}
        """Nodes that once had a lease, the latest: what they put yet does not count, and their ids never come back."""
        self._bucket = bucket
        self._sequence = 0  # of our lease
        self._renewed = math.inf  # when, by our clock
        self._trusting_until = -math.inf
        self._unburied: dict[str, None] = {}

    # -- ours --------------------------------------------------------------------------------------

    async def renew(self) -> bool:
        """See `Leases`."""
        now = trio.current_time()
        if now - self._renewed > self.lease:
            # We were late. If the broker was away, so were all others, and are not to be taken for dead.
            self._trusting_until = now + self.lease
        sequence = await self._put(self._sequence if self.held else 0)
        if sequence is None:
            return False
        self._sequence, self.held, self._renewed = sequence, True, now
        while not await self._learn(now):
            pass
        return True

    async def _put(self, after: int) -> int | None:
        """The number of our renewal; None if others have found us dead, or the stream was lost."""
        put = Put(f"node.{self.node}", b"%g" % self.lease)
        if (sequence := await self._put_after(put, after)) is not None:
            return sequence
        latest = await self._bucket.latest(put.key)
        if latest is None or latest[1] != put.payload:
            return None
        return await self._put_after(put, latest[0])  # ours, whose confirmation was lost

    async def _put_after(self, put: Put, after: int) -> int | None:
        try:
            return await self._bucket.put(put, after=after)
        except JetStreamError as exc:
            if exc.err_code == WRONG_LAST_SEQUENCE:
                return None
            raise

    # -- the others' -------------------------------------------------------------------------------

    async def _learn(self, now: float) -> bool:
        """Who lives. False if it has to be asked again, as somebody's lease was renewed in the last moment."""
        ours, leases = await self._read()
        unburied = len(self._unburied)
        trusting = now < self._trusting_until
        live: dict[str, float] = {}
        for lease in leases:
            if lease.seconds == 0:
                if -lease.left(ours.time) > _BURIAL:
                    self._unburied[lease.node] = None
            elif (left := lease.left(ours.time)) > 0:
                live[lease.node] = now + left
            elif trusting:
                live[lease.node] = self._trusting_until
            elif await self._put_after(Put(f"node.{lease.node}", _DEAD), lease.sequence) is None:
                return False
            else:
                self._unburied[lease.node] = None
        self.dead.update(dict.fromkeys(self.live.keys() - live.keys()))
        for node in list(islice(self.dead, max(0, len(self.dead) - _MAX_DEAD))):
            del self.dead[node]
        self.live = live
        if len(self._unburied) > unburied:
            self.look_soon()  # who looks may be a seat, and what follows is for `run`
        return True

    async def _read(self) -> tuple[_Lease, list[_Lease]]:
        """Our lease and all leases, not from before our renewal."""
        for _ in range(_ATTEMPTS):
            leases = [_parse(entry) for entry in await self._bucket.read(_ALL)]
            ours = next((lease for lease in leases if lease.node == self.node), None)
            if ours is not None and ours.sequence >= self._sequence:
                return ours, leases
            await trio.sleep(_PAUSE)
        raise BackplaneUnavailable("the server of the broker that answers is behind the others; retry later")

    async def bury(self) -> None:
        """Remove the rows of those that were found dead, if that is ours to do. Raises `BackplaneError`."""
        for node in list(self._unburied):
            await self._bucket.purge(keys_of_node(node))
            await self._bucket.purge(f"node.{node}")
            self._unburied.pop(node, None)
