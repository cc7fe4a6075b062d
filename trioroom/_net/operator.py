"""What those who run the servers may ask of all of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from trioroom._core.info import check_user
from trioroom._core.revocation import Revocation
from trioroom._net.control import Answers, Control
from trioroom._net.orders import carry_out
from trioroom._net.snapshot import Snapshots
from trioroom._wire.control import (
    MAX_REASON,
    Command,
    CountMembers,
    Disconnect,
    Done,
    FindRooms,
    Found,
    Kick,
    Look,
    Result,
    Seen,
)  # fmt: skip
from trioroom.closecodes import is_valid_on_wire
from trioroom.errors import BackplaneError

if TYPE_CHECKING:
    from trioroom._core.snapshot import Snapshot
    from trioroom._net.overview import Overview
    from trioroom.backplane.base import Backplane

ANSWER_TIMEOUT = 3.0
"""Seconds that other servers have to answer; one with a million members looks at all of them in a second or two."""

_LOOK_TIMEOUT = 1.0  # seconds: who watches looks each second


@attrs.frozen
class RoomsPage:
    """Active rooms in the order of their names, and how many members each has."""

    rooms: list[tuple[str, int]]
    more: bool
    nodes: int
    silent: int


@attrs.frozen
class MemberCount:
    """How many members a room has on all servers that answered."""

    members: int
    nodes: int
    silent: int


class Operator:
    """One per server; ``link`` is what there is between servers, None where there is just this one."""

    def __init__(self, overview: Overview, link: Backplane | None) -> None:
        self.overview = overview
        self.hub = overview.hub
        self.control = Control(link, self.hub.limits.budget, self._carry_out)
        self._snapshots = Snapshots(overview, self.control.node)

    async def _carry_out(self, command: Command) -> Result:
        if isinstance(command, Look):
            return Seen(await self._snapshots.take())
        return await carry_out(self.hub, command)

    async def snapshots(self) -> list[Snapshot]:
        """How all servers do that say so within a second; this one at least."""
        try:
            answers = await self.control.ask(Look(), _LOOK_TIMEOUT)
        except BackplaneError:  # who watches wants to see that
            return [await self._snapshots.take()]
        return [result.snapshot for result in answers.results if isinstance(result, Seen)]

    async def disconnect(
        self, user: str | None, connection: str | None, reason: str, close_code: int, timeout: float = ANSWER_TIMEOUT
    ) -> Revocation:
        """See `App.disconnect`."""
        if (user is None) is (connection is None):
            raise ValueError("disconnect needs a user or the id of a connection; give one of them")
        if user is not None:
            check_user(user)
        if not is_valid_on_wire(close_code):
            raise ValueError(f"close_code={close_code} cannot go over the wire; use 1008 or one from 3000 to 4999")
        _check_reason(reason)
        order = Disconnect(int(close_code), reason, user, connection)
        return Revocation(*_summed(await self.control.ask(order, timeout)))

    async def kick(self, room: str, user: str, reason: str, timeout: float = ANSWER_TIMEOUT) -> Revocation:
        """See `App.kick`."""
        check_user(user)
        _check_reason(reason)
        return Revocation(*_summed(await self.control.ask(Kick(room, user, reason), timeout)))

    async def find_rooms(self, prefix: str, after: str, limit: int, *, here: bool = False) -> RoomsPage:
        """The first ``limit`` behind the name ``after``, of all servers or of this one alone."""
        command = FindRooms(prefix, after, limit)
        if here:
            answers = Answers((await carry_out(self.hub, command),), 0)
        else:
            answers = await self.control.ask(command, ANSWER_TIMEOUT)
        found = [result for result in answers.results if isinstance(result, Found)]
        members: Counter[str] = Counter()
        for one in found:
            for name, count in one.rooms:
                members[name] += count
        # What a server has among its own first is all that it can have among the first of all.
        page = sorted(members.items())
        more = len(page) > limit or any(one.more for one in found)
        return RoomsPage(page[:limit], more, len(found), answers.silent)

    async def count_members(self, room: str) -> MemberCount:
        """Of all servers."""
        return MemberCount(*_summed(await self.control.ask(CountMembers(room), ANSWER_TIMEOUT)))


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise ValueError(
            f"reason of {len(reason)} characters exceeds {MAX_REASON}; a close frame has room for 123 bytes"
        )
    reason.encode()  # half a surrogate pair cannot be sent


def _summed(answers: Answers) -> tuple[int, int, int]:
    """How many were concerned, how many servers have said so, and how many have not."""
    counts = [result.count for result in answers.results if isinstance(result, Done)]
    return sum(counts), len(counts), answers.silent
