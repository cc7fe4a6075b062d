"""Who is in a room: what is true, on this node and on others, and what of it has been announced.

The truth changes with every join and leave. What the members of this node are told of it, the announced state, follows
at a bounded pace, in numbered diffs; a page of it and all diffs, in the order they come, make up one picture.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping

import attrs
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE, number, true_or_false

SETTLING = 5.0
"""Seconds that rows of other seats are kept after a resync without them: a broker that lost its data has lost them
too, and the nodes that are alive write theirs again."""

MAX_LISTED_BYTES = 1 << 18
"""What one page or diff may hold, counted in bytes of JSON."""


@attrs.frozen
class Presence:
    """How a room shows who is in it."""

    interval: float = attrs.field(default=1.0, validator=[POSITIVE, validators.lt(math.inf)])
    """Seconds between two pushes. The first change is told at once, and those that follow within so long together."""
    grace: float = attrs.field(default=2.0, validator=[number, validators.ge(0), validators.lt(math.inf)])
    """Seconds a user stays listed when the last connection has gone, so that a reconnect shows nothing. 0 is none."""
    count_only: bool = attrs.field(default=False, validator=true_or_false)
    """Tell how many there are and not who, for rooms where nobody reads the names, or nobody should."""
    max_listed: int = attrs.field(default=1000, validator=COUNT)
    """Users that one push names at most; a larger change tells the number only, and clients ask ``who``."""


@attrs.frozen
class Diff:
    """What has changed between two announcements."""

    version: int
    """Counts the announcements, from 1."""
    count: int
    """Users that are present now."""
    joined: dict[str, bytes]
    """Who came, or shows something else of itself: user -> info."""
    left: list[str]

    def fits(self, max_listed: int) -> bool:
        """Whether it is small enough to be told by name."""
        if len(self.joined) + len(self.left) > max_listed:
            return False
        size = sum(len(user) + len(info) for user, info in self.joined.items()) + sum(map(len, self.left))
        return size <= MAX_LISTED_BYTES


@attrs.frozen
class PageOfUsers:
    """A part of the announced state, in the order of user ids."""

    users: list[tuple[str, bytes]]
    count: int
    version: int
    more: bool


@attrs.define
class _Local:
    info: bytes
    connections: int = 1


class PresenceTable:
    """One room on one node. ``now`` is the caller's clock, which only goes forward."""

    def __init__(self, settings: Presence) -> None:
        self._settings = settings
        self._local: dict[str, _Local] = {}
        self._graces: dict[str, float] = {}  # users without a connection -> when they are gone, the earliest first
        self._seats: dict[str, dict[str, bytes]] = {}  # other seats -> their rows
        self._doubtful: dict[tuple[str, str], float] = {}  # rows that a resync lacked -> when they are gone
        self._touched: dict[str, None] = {}  # who may differ from what is announced
        self._announced: dict[str, bytes] = {}
        self._order: list[str] | None = []  # users announced, sorted; None until someone asks
        self._next_announcement = -math.inf
        self.version = 0

    @property
    def count(self) -> int:
        """Users announced."""
        return len(self._announced)

    @property
    def is_vacant(self) -> bool:
        """No user has or had a connection on this node, as far as others shall see."""
        return not self._local

    # -- what happens --------------------------------------------------------------------------

    def join(self, user: str, info: bytes) -> bool:
        """A connection of ``user`` on this node; the latest one's ``info`` counts. Whether its row is another now."""
        self._graces.pop(user, None)
        local = self._local.get(user)
        if local is None:
            self._local[user] = _Local(info)
        else:
            local.connections += 1
            if local.info == info:
                return False
            local.info = info
        self._touched[user] = None
        return True

    def leave(self, user: str, now: float) -> None:
        """That connection is gone; the user after the last one's grace, when `expire` says so."""
        local = self._local[user]
        local.connections -= 1
        if not local.connections:
            self._graces[user] = now + self._settings.grace

    def expire(self, now: float) -> list[str]:
        """Give up what ``now`` is too late for. Returns users of this node whose rows are to go."""
        gone: list[str] = []
        for user, deadline in self._graces.items():
            if deadline > now:
                break  # they came in this order
            gone.append(user)
        for user in gone:
            del self._graces[user], self._local[user]
            self._touched[user] = None
        for (seat, user), deadline in list(self._doubtful.items()):
            if deadline <= now:
                self._remove(seat, user)
        return gone

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """As `PresenceListener.rows_changed`."""
        if put:
            self._seats.setdefault(seat, {}).update(put)
        for user in put:
            self._doubtful.pop((seat, user), None)
            self._touched[user] = None
        for user in removed:
            self._remove(seat, user)

    def seat_gone(self, seat: str) -> None:
        """As `PresenceListener.seat_gone`."""
        for user in list(self._seats.get(seat, ())):
            self._remove(seat, user)

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]], now: float) -> None:
        """As `PresenceListener.resynced`; what is lacking stays for `SETTLING` seconds, unless it comes back."""
        for seat, rows in self._seats.items():
            there = seats.get(seat, {})
            for user in rows:
                if user not in there:
                    self._doubtful.setdefault((seat, user), now + SETTLING)
        for seat, present in seats.items():
            self.rows_changed(seat, present, ())

    def _remove(self, seat: str, user: str) -> None:
        self._doubtful.pop((seat, user), None)
        rows = self._seats.get(seat)
        if rows is not None and rows.pop(user, None) is not None:
            self._touched[user] = None
            if not rows:
                del self._seats[seat]

    # -- what is told --------------------------------------------------------------------------

    def wakes_at(self) -> float:
        """When `expire` or `announce` next have something to do, if nothing happens until then; inf is never."""
        grace = next(iter(self._graces.values()), math.inf)
        doubt = min(self._doubtful.values(), default=math.inf)
        return min(grace, doubt, self._next_announcement if self._touched else math.inf)

    def announce(self, now: float) -> Diff | None:
        """What has changed since the last time, which is announced by this; None if nothing has, or it is too early."""
        if not self._touched or now < self._next_announcement:
            return None
        joined: dict[str, bytes] = {}
        left: list[str] = []
        for user in self._touched:
            info, before = self._find(user), self._announced.get(user)
            if info is None:
                if before is not None:
                    left.append(user)
            elif info != before:
                joined[user] = info
        self._touched.clear()
        if not joined and not left:
            return None
        if left or any(user not in self._announced for user in joined):
            self._order = None
        self._announced.update(joined)
        for user in left:
            del self._announced[user]
        self._next_announcement = now + self._settings.interval
        self.version += 1
        return Diff(self.version, self.count, joined, left)

    def page(self, limit: int, after: str | None) -> PageOfUsers:
        """Up to ``limit`` users of the announced state whose ids come after ``after``; fewer if they show much."""
        if self._order is None:
            self._order = sorted(self._announced)
        start = 0 if after is None else bisect_right(self._order, after)
        users: list[tuple[str, bytes]] = []
        size = 0
        for user in self._order[start : start + limit]:
            info = self._announced[user]
            size += len(user) + len(info)
            if users and size > MAX_LISTED_BYTES:
                break
            users.append((user, info))
        return PageOfUsers(users, self.count, self.version, start + len(users) < len(self._order))

    def _find(self, user: str) -> bytes | None:
        """What ``user`` shows, if it is present: on this node, or else on the first seat that has it."""
        if (local := self._local.get(user)) is not None:
            return local.info
        return next(self._elsewhere(user), None)

    def _elsewhere(self, user: str) -> Iterator[bytes]:
        return (rows[user] for rows in self._seats.values() if user in rows)
