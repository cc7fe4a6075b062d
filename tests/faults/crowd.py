"""All who are members during a run, and what they keep of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from tests.faults.losses import check_losses
from tests.faults.records import Ended, Joined, MemberKind, Publication, Record, Run
from tests.faults.world import World
from trioroom.client import ClientRoom

ROOMS: Final[Sequence[str]] = (
    "kept/a",
    "short/a",
    "keptdropping/a",
    "passing/a",
    "dropping/a",
    "refusing/a",
    "latest/a",
)
"""Those with members from beginning to end."""
PUBLISH_INTERVAL: Final = 0.3
"""Seconds between two publications of one publisher, on average."""


@attrs.define
class Crowd:
    """Members note here what happens to them."""

    world: World
    seed: int
    run: Run = attrs.field(factory=Run)
    quiet: trio.Event = attrs.field(factory=trio.Event)
    """Set when each publisher is to publish a last time."""
    over: bool = False
    """Nobody comes back any more."""
    publishing: set[str] = attrs.field(factory=set)
    """Publishers who have not come to their last publication."""
    counts: dict[str, int] = attrs.field(factory=dict)
    """What has happened, for the summary."""
    lists: dict[tuple[str, int], ClientRoom] = attrs.field(factory=dict)
    """By room and node, a client that keeps the list of who is there."""
    _open: list[Record] = attrs.field(factory=list)
    _names: int = 0

    # -- records ------------------------------------------------------------------------------------

    def open_record(self, who: str, node: int, room: str, kind: MemberKind) -> Record:
        """Of a member that is about to join."""
        record = Record(who, node, room, kind)
        self.run.records.append(record)
        self._open.append(record)
        return record

    def close_record(self, record: Record, why: str, *, settled: bool = False) -> None:
        """Nothing comes to it any more."""
        if record.end is None:
            self.count(f"ends: {why}")
            record.entries.append(Ended(trio.current_time(), why, settled))
        if record in self._open:
            self._open.remove(record)

    def close_all(self) -> None:
        """The run is over; who is here still has been a member to the end."""
        self.over = True
        for record in [*self._open]:
            self.close_record(record, "over", settled=True)

    def chance(self, of: str) -> random.Random:
        """What one of them is led by: the same for the same seed."""
        return random.Random(f"{self.seed} {of}")

    def count(self, what: str) -> None:
        """One more."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def trouble(self, what: str) -> None:
        """Something that must not be."""
        self.run.troubles.append(what)

    # -- publications -------------------------------------------------------------------------------

    def new_name(self, of: str) -> str:
        """For a publisher: nobody else numbers under it."""
        self._names += 1
        return f"{of}.{self._names}"

    def publication(self, publisher: str, number: int, room: str) -> Publication:
        """One that goes out now."""
        begun = Publication(publisher, number, room, trio.current_time())
        self.run.publications.append(begun)
        return begun

    # -- the end ------------------------------------------------------------------------------------

    def listed(self, room: str, node: int) -> list[str]:
        """By a client's list, which is made of a page of `who` and all pushes since."""
        keeper = self.lists.get((room, node))
        return [] if keeper is None else sorted(keeper.present)

    def members_of(self, room: str) -> list[str]:
        """Who is there in truth."""
        return sorted({record.who for record in self._open if record.room == room})

    def waits_for(self) -> int:
        """How many of those here have something to come."""
        now = trio.current_time()
        ended = [
            Record(each.who, each.node, each.room, each.kind, [*each.entries, Ended(now, "", True)])
            for each in self._open
        ]
        not_joined = sum(not any(isinstance(entry, Joined) for entry in each.entries) for each in self._open)
        return not_joined + len([*check_losses(Run(publications=self.run.publications, records=ended))])
