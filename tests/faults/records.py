"""What a run leaves behind, and what the checker judges by: what members got, what publishers know, what hooks ran.

All times are seconds of the monotonic clock of the process that runs the suite, but for those in what nodes write.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from trioroom._core.history import Position

NOT_STARTED: Final = "could not start"
"""How a life of a node ends that finds no broker."""


class Publication(msgspec.Struct):
    """One publisher publishes one after another, each once it is known what became of the one before."""

    publisher: str
    number: int
    room: str
    began: float
    acknowledged: float | None = None
    """When the server had said ``ok``; None if it has not."""

    @property
    def key(self) -> str:
        """What members see of it."""
        return f"{self.publisher}:{self.number}"


class Joined(msgspec.Struct, tag="joined", frozen=True):
    """The room has been joined: at first, or again on another connection of a client."""

    at: float
    member: str | None = None
    """What ``on_join`` returned: the id of the member on its node."""
    position: Position | None = None
    """Where it begins, in rooms with a history; None also where the record cannot tell."""
    recovered: bool | None = None
    """None when nothing was asked to be recovered. False excuses what was missed, and True nothing."""
    asked: Position | None = None
    """Behind which place all was asked for; None also where the record cannot tell."""


class Received(msgspec.Struct, tag="received", frozen=True):
    """A publication has come."""

    at: float
    key: str
    position: Position | None = None


class Told(msgspec.Struct, tag="gap", frozen=True):
    """A ``gap``: what is missing in this place is known to be."""

    at: float
    reason: str
    lost: int | None = None


class Moved(msgspec.Struct, tag="position", frozen=True):
    """The history goes on from another position, with nothing missing."""

    at: float
    position: Position


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """Nothing comes any more."""

    at: float
    why: str
    """A close code, ``kicked``, ``cut off``, or what went wrong."""
    settled: bool = False
    """It was a member to the very end: what was acknowledged before has to have come."""


MemberKind: TypeAlias = Literal["client", "raw", "slow"]
"""Our client, a raw peer, or a raw peer that does not read for a while."""
Entry: TypeAlias = Joined | Received | Told | Moved | Ended


class Record(msgspec.Struct):
    """One member: of a raw peer that is one connection, of our client all of them."""

    who: str
    node: int
    room: str
    kind: MemberKind
    entries: list[Entry] = msgspec.field(default_factory=list)

    @property
    def end(self) -> Ended | None:
        """The last entry, of one that has ended."""
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, Ended) else None


class Hook(msgspec.Struct, frozen=True):
    """A node's own record: a hook has begun."""

    hook: Literal["open", "join", "leave", "close"]
    room: str
    member: str | None = None


class Life(msgspec.Struct):
    """A node's process, from its start to its end."""

    node: int
    number: int
    ended: str
    """``killed``, `NOT_STARTED`, or ``exit`` and its code."""
    hooks: list[Hook] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)
    """What it has logged that it should not have."""


class PresenceSeen(msgspec.Struct):
    """Who was in a room in the end, by what one node says, and in truth."""

    room: str
    node: int
    by: str
    """An answer to ``who``, or what pushes have come to."""
    seen: list[str]
    truly: list[str]


class Remains(msgspec.Struct):
    """What a node had when all members had gone, and before the first one came."""

    node: int
    metrics: dict[str, float]
    tasks: float
    idle_tasks: float
    resident: int
    """Bytes."""
    warm: int
    """Bytes that were resident when this process had served for a while; 0 if it has not."""


class Restart(msgspec.Struct, frozen=True):
    """Of the broker."""

    alive: float
    """When it was killed."""
    back: float
    forgot: bool
    """It has lost its data."""


class Run(msgspec.Struct):
    """All of it."""

    publications: list[Publication] = msgspec.field(default_factory=list)
    records: list[Record] = msgspec.field(default_factory=list)
    lives: list[Life] = msgspec.field(default_factory=list)
    restarts: list[Restart] = msgspec.field(default_factory=list)
    presence: list[PresenceSeen] = msgspec.field(default_factory=list)
    remains: list[Remains] = msgspec.field(default_factory=list)
    dense: bool = True
    """Offsets of a history go up by one, and not only up."""
    troubles: list[str] = msgspec.field(default_factory=list)
    """What the suite itself has seen to be wrong while it ran."""


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken."""

    promise: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.where}: {self.what}"


def read_hooks(journal: Path) -> list[Hook]:
    """What one process of a node has written; a line that is torn by SIGKILL is left out."""
    whole = journal.read_bytes().rpartition(b"\n")[0] if journal.exists() else b""
    return [msgspec.json.decode(line, type=Hook) for line in whole.splitlines()]


def write_run(run: Run, folder: Path) -> None:
    """As files to read and to `grep`: one of each kind, a line for each record."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("publications", "records", "lives", "presence", "remains"):
        lines: Sequence[object] = getattr(run, name)
        (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    (folder / "run.json").write_bytes(msgspec.json.encode(run))


def read_run(folder: Path) -> Run:
    """What `write_run` has written, to be judged again."""
    return msgspec.json.decode((folder / "run.json").read_bytes(), type=Run)
