from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._core.snapshots import make_snapshot
from trioroom._core.snapshot import BusyRoom, NodeReport, Report, SlowConnection
from trioroom.cli.top_layout import cut, lay_out, printable, share, width_of
from trioroom.cli.watch import View, Watch

URL = "http://127.0.0.1:8000"


def view(nodes: int = 2, rooms: int = 3, slow: int = 2, room: str = "chat/{}") -> View:
    """Of so many of each on the first node."""
    busy = [BusyRoom(room.format(number), 100 - number, 0, 5) for number in range(rooms)]
    behind = [SlowConnection(f"{number:016}", 5, 1_000, 1.5) for number in range(slow)]
    first = [make_snapshot("0", busy_rooms=busy, slow_connections=behind)] if nodes else []
    others = [make_snapshot(str(number), busy_rooms=[], slow_connections=[]) for number in range(1, nodes)]
    return Watch().update(Report(nodes=[NodeReport(each, 0.0, False) for each in [*first, *others]]))


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_all_of_it_where_there_is_room() -> None:
    lines = lay_out(view(), URL, "", 140, colors=False)
    assert lines[0] == f"trioroom {URL}  2 nodes"
    assert lines[1].startswith("connections 6   members 6   rooms 2   refused 0   in -   deliveries -")
    text = "\n".join(lines)
    for word in ("NODE ", "CONNECTIONS", "host:0", "3/1,000", "LARGEST ROOMS", "chat/2", "SLOW CONSUMERS", "1000 B"):
        assert word in text


def test_one_node_is_one_and_none_is_said_so() -> None:
    assert "  1 node" in lay_out(view(1), URL, "", 100, colors=False)[0]
    text = "\n".join(lay_out(view(0), URL, "", 100, colors=False))
    for nothing in ("no node answers", "no room is active", "nobody is behind"):
        assert nothing in text


def test_notice_stands_in_the_first_line() -> None:
    assert "no answer" in lay_out(view(), URL, "no answer", 100, colors=False)[0]


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 9), st.integers(0, 20), st.integers(0, 20))
def test_it_fits_any_terminal(width: int, height: int, nodes: int, rooms: int, slow: int) -> None:
    lines = plain(lay_out(view(nodes, rooms, slow, "日本/{}"), URL, "no answer", width, height))
    assert len(lines) <= height
    assert max(map(width_of, lines)) <= width


def test_columns_that_matter_least_go_first_and_the_name_is_cut_last() -> None:
    heads = []
    for width in (150, 110, 80, 50):
        lines = plain(lay_out(view(), URL, "", width))
        heads.append(next(line for line in lines if line.startswith("NODE")).split())
    assert "VERSION" in heads[0]
    assert "VERSION" not in heads[1]
    assert [len(head) for head in heads] == sorted((len(head) for head in heads), reverse=True)
    assert heads[3][:3] == ["NODE", "STATE", "CONNECTIONS"]


def test_each_table_has_its_share_of_a_small_terminal() -> None:
    lines = plain(lay_out(view(9, 20, 20), URL, "", 80, 24))
    for head in ("NODE", "LARGEST ROOMS", "SLOW CONSUMERS"):
        assert any(line.startswith(head) for line in lines)


@pytest.mark.parametrize(
    ("available", "wanted", "given_out"),
    [
        (30, [5, 5, 5], [5, 5, 5]),
        (12, [2, 20, 20], [2, 5, 5]),
        (0, [5, 5], [0, 0]),
        (10, [20], [10]),
        (9, [9, 0], [9, 0]),
    ],
)
def test_lines_are_shared(available: int, wanted: list[int], given_out: list[int]) -> None:
    assert share(available, wanted) == given_out


@given(st.integers(0, 100), st.lists(st.integers(0, 50), max_size=5))
def test_no_more_lines_are_shared_than_there_are_nor_fewer_than_are_wanted(available: int, wanted: list[int]) -> None:
    assert sum(share(available, wanted)) == min(available, sum(wanted))


def test_room_called_like_a_command_for_the_terminal_is_only_text() -> None:
    name = "chat/\x1b]0;owned\x07\x1b[2J\u202egnorw"
    lines = lay_out(view(rooms=1, room=name.replace("{", "{{")), URL, "", 120)
    text = "\n".join(lines)
    assert "�]0;owned�" in text
    assert "\u202e" not in text
    assert re.findall(r"\x1b(?!\[[0-9;]*m)", text) == []


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert width_of("日本") == 4
    assert width_of("e\u0301") == 1
    assert cut("日本語", 4) == "日…"
    assert cut("abc", 3) == "abc"
    assert cut("abc", 0) == ""
    assert printable("a\tb") == "a�b"


def test_colors_are_for_what_is_wrong() -> None:
    bad = Watch().update(
        Report(nodes=[NodeReport(make_snapshot("a", loop_lag=0.5, backplane_ready=False), 0.0, False)])
    )
    assert "\x1b[1;31m" in "\n".join(lay_out(bad, URL, "", 120))
    assert "\x1b[1;31m" not in "\n".join(lay_out(view(), URL, "", 120))
