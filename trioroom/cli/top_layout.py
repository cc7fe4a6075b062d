"""What `trioroom top` writes, for a terminal of any size: no I/O here, lines in and out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from trioroom._core.snapshot import SlowConnection
from trioroom.cli.figures import NOTHING, count, duration, lag, of, percent, rate, size
from trioroom.cli.watch import NodeView, RoomView, View

T = TypeVar("T")
BOLD, DIM, HEAD, BAD = "1", "2", "7", "1;31"  # SGR, ECMA-48 §8.3.117
_GAP = 2  # columns of the terminal between two of a table
_LATE = 0.25  # seconds of an event loop's lag that members notice
_MIN_NAME = 12  # columns that a name keeps; rather than less of it, others go


@attrs.frozen
class Column(Generic[T]):
    """One of a table. Those without which it still means something are left out where there is no room for all."""

    title: str
    text: Callable[[T], str]
    rank: int = 0
    """The highest one goes first."""
    bad: Callable[[T], bool] = lambda row: False


NODES: tuple[Column[NodeView], ...] = (
    Column("NODE", lambda node: node.snapshot.label),
    Column(
        "STATE", lambda node: f"silent {duration(node.age)}" if node.state == "silent" else node.state,
        bad=lambda node: node.state != "up",
    ),
    Column("CONNECTIONS", lambda node: of(node.snapshot.connections, node.snapshot.max_connections)),
    Column("MEMBERS", lambda node: count(node.snapshot.members), 3),
    Column("ROOMS", lambda node: count(node.snapshot.rooms), 4),
    Column("IN/s", lambda node: rate(node.received), 1),
    Column("DELIV/s", lambda node: rate(node.deliveries)),
    Column("DROP/s", lambda node: rate(node.dropped), 1, bad=lambda node: bool(node.dropped)),
    Column("QUEUED", lambda node: size(node.snapshot.queued_bytes), 2),
    Column("LAG", lambda node: lag(node.snapshot.loop_lag), 1, bad=lambda node: node.snapshot.loop_lag >= _LATE),
    Column("CPU", lambda node: percent(node.cpu), 1),
    Column("MEMORY", lambda node: size(node.snapshot.resident_bytes), 2),
    Column("FILES", lambda node: of(node.snapshot.open_files, node.snapshot.max_open_files), 5),
    Column("UP", lambda node: duration(node.snapshot.uptime), 5),
    Column("VERSION", lambda node: node.snapshot.version, 6),
)  # fmt: skip
ROOMS: tuple[Column[RoomView], ...] = (
    Column("LARGEST ROOMS", lambda room: room.name),
    Column("MEMBERS", lambda room: count(room.members)),
    Column("DELIV/s", lambda room: rate(room.deliveries)),
    Column("WAITING", lambda room: count(room.waiting), 1, bad=lambda room: room.waiting > 0),
    Column("NODES", lambda room: count(room.nodes), 2),
)
SLOW: tuple[Column[tuple[SlowConnection, str]], ...] = (
    Column("SLOW CONSUMERS", lambda slow: slow[0].id),
    Column("QUEUED", lambda slow: size(slow[0].queued_bytes)),
    Column("MESSAGES", lambda slow: count(slow[0].messages)),
    Column("BEHIND", lambda slow: lag(slow[0].age)),
    Column("NODE", lambda slow: slow[1], 1),
)

Piece = tuple[str, str]
"""Text, and the SGR parameters that it is written with; none for plain."""


def lay_out(
    view: View, title: str, notice: str, width: int, height: int | None = None, *, colors: bool = True
) -> list[str]:
    """Up to ``height`` lines that take up to ``width`` columns each.

    Args:
        title: what is watched.
        notice: what is wrong with the watching itself; empty when nothing is.
        height: as many as it takes, for None.
        colors: write with ANSI sequences.
    """
    lines = [*_header(view, title, notice, width), []]
    tables = [
        _table(NODES, view.nodes, width, "no node answers"),
        _table(ROOMS, view.rooms, width, "no room is active"),
        _table(SLOW, view.slow, width, "nobody is behind"),
    ]
    wanted = [len(table) for table in tables]
    if height is not None:
        wanted = share(max(0, height - len(lines) - len(tables) + 1), wanted)
    for table, given in zip(tables, wanted, strict=True):
        lines += [*table[:given], []]
    lines = lines[:-1] if height is None else lines[:-1][:height]
    return [_paint(line, width, colors) for line in lines]


def share(available: int, wanted: Sequence[int]) -> list[int]:
    """So many lines for each: who wants little gets it, and the others as many as each other."""
    given = [0] * len(wanted)
    unserved = sorted(range(len(wanted)), key=lambda place: wanted[place])
    while unserved:
        place = unserved.pop(0)
        given[place] = min(wanted[place], available // (len(unserved) + 1))
        available -= given[place]
    return given


# -- parts ------------------------------------------------------------------------------------------


def _header(view: View, title: str, notice: str, width: int) -> list[list[Piece]]:
    totals = view.totals
    nodes = f"{len(view.nodes)} node{'' if len(view.nodes) == 1 else 's'}"
    figures = (
        ("connections", count(totals.connections), ""),
        ("members", count(totals.members), ""),
        ("rooms", count(totals.rooms), ""),
        ("refused", count(totals.refused), ""),
        ("in", _per_second(totals.received), ""),
        ("deliveries", _per_second(totals.deliveries), ""),
        ("dropped", _per_second(totals.dropped), BAD if totals.dropped else ""),
        ("queued", size(totals.queued_bytes), ""),
        ("lag", lag(totals.loop_lag), BAD if (totals.loop_lag or 0) >= _LATE else ""),
        ("cpu", percent(totals.cpu), ""),
        ("memory", size(totals.resident_bytes), ""),
    )
    first: list[Piece] = [("trioroom ", BOLD), (f"{printable(title)}  {nodes}  ", ""), (printable(notice), BAD)]
    return [first, *_flow([[(f"{label} ", DIM), (text, style or BOLD)] for label, text, style in figures], width)]


def _per_second(value: float | None) -> str:
    return NOTHING if value is None else f"{rate(value)}/s"


def _flow(items: list[list[Piece]], width: int) -> list[list[Piece]]:
    """As many lines as it takes."""
    lines: list[list[Piece]] = [[]]
    for item in items:
        taken, needed = _width_of(lines[-1]), _width_of(item)
        if lines[-1] and taken + 3 + needed > width:
            lines.append([])
        lines[-1] += [("   ", ""), *item] if lines[-1] else item
    return lines


def _table(columns: Sequence[Column[T]], rows: Sequence[T], width: int, nothing: str) -> list[list[Piece]]:
    """Its head, and a line for each row. The first column takes the room that the others leave."""
    texts = {column.title: [printable(column.text(row)) for row in rows] for column in columns}
    widths = {title: max(map(width_of, [title, *column])) for title, column in texts.items()}
    shown = _those_with_room(columns, widths, width)
    first = shown[0].title
    rest = sum(_GAP + widths[column.title] for column in shown[1:])
    widths[first] = max(0, min(widths[first], width - rest))
    lines = [[(_row([column.title for column in shown], shown, widths), HEAD)]]
    for place, row in enumerate(rows):
        pieces = []
        for column in shown:
            text = _cell(texts[column.title][place], column, shown, widths)
            plain = DIM if text.strip() in ("0", NOTHING) else ""
            pieces.append((text, BAD if column.bad(row) else plain))
        lines.append(pieces)
    return lines if rows else [*lines, [(nothing, DIM)]]


def _those_with_room(columns: Sequence[Column[T]], widths: dict[str, int], width: int) -> list[Column[T]]:
    shown = list(columns)

    def needed() -> int:
        name = min(_MIN_NAME, widths[shown[0].title])
        return name + sum(_GAP + widths[column.title] for column in shown[1:])

    while needed() > width and len(shown) > 1:
        shown.remove(max(shown[1:], key=lambda column: column.rank))
    return shown


def _row(texts: list[str], shown: Sequence[Column[T]], widths: dict[str, int]) -> str:
    return "".join(_cell(text, column, shown, widths) for text, column in zip(texts, shown, strict=True))


def _cell(text: str, column: Column[T], shown: Sequence[Column[T]], widths: dict[str, int]) -> str:
    """The first one to the left, the others to the right."""
    width = widths[column.title]
    if column is shown[0]:
        text = cut(text, width)
        return text + " " * (width - width_of(text))
    return " " * (_GAP + width - width_of(text)) + text


# -- text -------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """``text`` without what a terminal may take for a command, or for another direction of writing."""
    return "".join(character if character.isprintable() else "�" for character in text)


def width_of(text: str) -> int:
    """Columns that a terminal takes for it."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """As much of it as fits, with a sign if that is not all."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width > 0 else ""


def _width_of(line: Sequence[Piece]) -> int:
    return sum(width_of(text) for text, _ in line)


def _paint(line: Sequence[Piece], width: int, colors: bool) -> str:
    painted = ""
    for text, style in line:
        text = cut(text, width)
        width -= width_of(text)
        painted += f"\x1b[{style}m{text}\x1b[0m" if style and text and colors else text
    return painted if colors else painted.rstrip()
