"""Whether what docs/explanation/guarantees.md promises was kept, by the records of a run; nothing is asked of anybody.

Each promise is one function from a `Run` to what broke it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from tests.faults.counts import LATE, check_counts
from tests.faults.losses import check_losses
from tests.faults.order import check_order
from tests.faults.records import NOT_STARTED, Hook, Joined, Life, Moved, Received, Record, Run, Told, Violation
from tests.faults.rooms import MAX_WAITING, kind_of
from trioroom._core.history import Position

GROWTH: Final = 48 << 20
"""Bytes that a node may have grown by in a run. A leak of what faults leave behind is larger in minutes; what Python's
allocator keeps of the largest storm is less."""
OUT_OF_TOUCH: Final = 25.0
"""Seconds for which a node may not know what has become of the broker, and still lets members in, where it was."""
LONG: Final = 1_000
"""Publications of a history that no outage of a run is longer than."""
EMPTY: Final = ("trioroom_members", "trioroom_rooms", "trioroom_queued_bytes", "trioroom_deliveries_queued")
"""Metrics that are 0 when nobody is there."""


def check(run: Run) -> list[Violation]:
    """All that is wrong, by promise."""
    return [violation for promise in PROMISES for violation in promise(run)]


def repeatable(run: Run) -> frozenset[str]:
    """Publications that may have come twice: the broker forgot that it had them before their publisher was told."""
    return frozenset(
        publication.key
        for publication in run.publications
        for restart in run.restarts
        if restart.forgot
        and publication.began <= restart.back
        and (publication.acknowledged is None or publication.acknowledged >= restart.alive)
    )


def check_duplicates(run: Run) -> Iterator[Violation]:
    """At most once to each member: over one connection, or over all of a client's."""
    excused = repeatable(run)
    for record in run.records:
        counts = Counter(entry.key for entry in record.entries if isinstance(entry, Received))
        again = [key for key, count in counts.items() if count > 1 and key not in excused]
        if again:
            yield Violation("no duplicates", _where(record), f"came more than once: {_some(again)}")


def check_positions(run: Run) -> Iterator[Violation]:
    """A place in a history is one publication, and only a gap or a new epoch jumps.

    Where rooms share their offsets these only go up.
    """
    excused = repeatable(run)
    at: dict[tuple[str, str, int], str] = {}
    for record in run.records:
        for received in _received(record):
            if received.position is None:
                if kind_of(record.room).history is not None:
                    yield Violation("positions", _where(record), f"{received.key} has none")
                continue
            place = (record.room, received.position.epoch, received.position.offset)
            if at.setdefault(place, received.key) != received.key:
                yield Violation("positions", _where(record), f"{place} is {received.key} here, {at[place]} elsewhere")
        yield from _check_steps(record, dense=run.dense)
    places: defaultdict[str, set[int]] = defaultdict(set)
    for (_, _, offset), key in at.items():
        places[key].add(offset)  # an epoch that goes on from another one has its offsets
    for key, several in places.items():
        if len(several) > 1 and key not in excused:
            yield Violation("positions", key, f"was published more than once: {_some(sorted(several))}")


def _check_steps(record: Record, *, dense: bool) -> Iterator[Violation]:
    """Within what a member got."""
    last: Position | None = None
    lost = 0
    for entry in record.entries:
        match entry:
            case Told(_, "overflow", int(count)):
                lost += count  # the room's policy knows how many it has dropped
            case Told() | Joined(recovered=False):
                last = None
            case Moved(_, position) | Joined(_, _, position, None):
                last, lost = position, 0
            case Received(_, key, Position() as position):
                expected = None if last is None or last.epoch != position.epoch else last.offset + 1 + lost
                if expected is not None and (position.offset != expected if dense else position.offset < expected):
                    what = f"{key} at {position.offset} and not {expected}, with {lost} told to be lost before"
                    yield Violation("positions", _where(record), what)
                last, lost = position, 0


def check_needless_gaps(run: Run) -> Iterator[Violation]:
    """Where the history is long enough an outage costs nothing, unless the broker forgot, or restarted twice in it."""
    for record in run.records:
        history = kind_of(record.room).history
        if history is None or history.size < LONG:
            continue
        since = 0.0
        for entry in record.entries:
            if isinstance(entry, Told) and entry.reason == "backplane":
                met = [each for each in run.restarts if each.alive <= entry.at and each.back >= since - LATE]
                if len(met) < 2 and not any(restart.forgot for restart in met):
                    what = f"a gap at {entry.at:.1f} though the broker had it all: {len(met)} restarts"
                    yield Violation("no needless gaps", _where(record), what)
            since = max(since, entry.at - OUT_OF_TOUCH) if isinstance(entry, Joined) else entry.at


def check_recoveries(run: Run) -> Iterator[Violation]:
    """Who asks for what it missed gets it where the history is long enough, if it fits into half of its outbox."""
    for record in run.records:
        kind = kind_of(record.room)
        if kind.history is None or kind.history.size < LONG:
            continue
        for entry in record.entries:
            match entry:
                case Joined(_, _, Position(epoch, offset), False, Position(asked_epoch, asked)):
                    if asked_epoch == epoch and 0 <= offset - asked <= MAX_WAITING // 2:
                        what = f"was not recovered from {asked}, and the history had come to {offset}"
                        yield Violation("no needless gaps", _where(record), what)


def check_hooks(run: Run) -> Iterator[Violation]:
    """One ``on_leave`` for each ``on_join`` that began, rooms open before and close after; no two of a name at once."""
    for life in run.lives:
        yield from _check_life(life)
    joined = {hook.member for life in run.lives for hook in life.hooks if hook.hook == "join"}
    for record in run.records:
        for entry in record.entries:
            if isinstance(entry, Joined) and entry.member is not None and entry.member not in joined:
                yield Violation("hooks", _where(record), f"{entry.member} is in, and no on_join of it has begun")


def _check_life(life: Life) -> Iterator[Violation]:
    where = f"node {life.node}, life {life.number}"
    open_rooms: set[str] = set()
    members: set[tuple[str, str | None]] = set()
    for hook in life.hooks:
        place = (hook.room, hook.member)
        if wrong := _wrong_hook(hook, open_rooms, members):
            yield Violation("hooks", where, f"{wrong}: {hook.room} {hook.member or ''}".rstrip())
        match hook.hook:
            case "open":
                open_rooms.add(hook.room)
            case "close":
                open_rooms.discard(hook.room)
            case "join":
                members.add(place)
            case "leave":
                members.discard(place)
    if life.ended != "killed":
        for room, member in sorted(members, key=str):
            yield Violation("one leave per join", where, f"on_leave never ran: {room} {member}")
        for room in sorted(open_rooms):
            yield Violation("hooks", where, f"on_close never ran: {room}")


def _wrong_hook(hook: Hook, open_rooms: set[str], members: set[tuple[str, str | None]]) -> str:
    place = (hook.room, hook.member)
    if hook.hook == "open":
        return "on_open of a room that is open" if hook.room in open_rooms else ""
    if hook.room not in open_rooms:
        return f"on_{hook.hook} of a room that is not open"
    if hook.hook == "join" and place in members:
        return "on_join twice"
    if hook.hook == "leave" and place not in members:
        return "on_leave without on_join, or twice"
    if hook.hook == "close" and any(room == hook.room for room, _ in members):
        return "on_close before the last on_leave"
    return ""


def check_presence(run: Run) -> Iterator[Violation]:
    """In the end every node knows who is there."""
    for seen in run.presence:
        missing, ghosts = sorted({*seen.truly} - {*seen.seen}), sorted({*seen.seen} - {*seen.truly})
        if missing or ghosts:
            what = f"{len(missing)} missing: {_some(missing)}; {len(ghosts)} who are not there: {_some(ghosts)}"
            yield Violation("presence agrees", f"{seen.room} on node {seen.node}, {seen.by}", what)


def check_remains(run: Run) -> Iterator[Violation]:
    """When all have gone nothing is left of them."""
    for remains in run.remains:
        where = f"node {remains.node}"
        if not remains.metrics:
            yield Violation("nothing remains", where, "it does not answer any more")
            continue
        for name in EMPTY:
            if remains.metrics.get(name) != 0:
                yield Violation("nothing remains", where, f"{name} is {remains.metrics.get(name)}, and nobody is there")
        if remains.tasks > remains.idle_tasks:
            what = f"{remains.tasks:.0f} tasks, {remains.idle_tasks:.0f} when it was new; its log has both trees"
            yield Violation("no orphan tasks", where, what)
        if remains.warm and remains.resident > remains.warm + GROWTH:
            what = f"{remains.warm >> 20} MiB when it was warm, {remains.resident >> 20} in the end"
            yield Violation("bounded memory", where, what)


def check_lives(run: Run) -> Iterator[Violation]:
    """Who is not killed ends with exit code 0, and nobody logs an error."""
    for life in run.lives:
        where = f"node {life.node}, life {life.number}"
        if life.ended not in ("killed", "exit 0", NOT_STARTED):
            yield Violation("exit codes", where, life.ended)
        for error in life.errors:
            yield Violation("no errors", where, error)


def check_troubles(run: Run) -> Iterator[Violation]:
    """What was seen at once."""
    for trouble in run.troubles:
        yield Violation("seen", "during the run", trouble)


def _received(record: Record) -> Iterator[Received]:
    return (entry for entry in record.entries if isinstance(entry, Received))


def _where(record: Record) -> str:
    return f"{record.who} ({record.kind}) in {record.room} on node {record.node}"


def _some(several: Iterable[object], most: int = 5) -> str:
    listed: Sequence[object] = list(several)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(map(str, listed[:most])) + more


def _check_order(run: Run) -> Iterator[Violation]:
    """All members of a room see one order."""
    return check_order(run, repeatable(run))


PROMISES: Final[Sequence[Callable[[Run], Iterator[Violation]]]] = (
    _check_order,
    check_losses,
    check_counts,
    check_duplicates,
    check_positions,
    check_needless_gaps,
    check_recoveries,
    check_hooks,
    check_presence,
    check_remains,
    check_lives,
    check_troubles,
)
