"""Alike tasks are one line, and the whole tree has a bounded number of them."""

from __future__ import annotations

import pytest

from trioroom._core.task_groups import MAX_LINES, TaskGroup, kind_of, lines_of


def fill(parent: TaskGroup, *names: str, place: str = "") -> TaskGroup:
    """Tasks in a nursery of ``parent``'s; the group of the last one."""
    for name in names:
        group = parent.below((kind_of(name), place), kind_of(name))
        group.place = place
        group.add(name)
    return group


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("connection", "connection"),
        ("room chat/a b", "room"),
        ("player-17", "player-#"),
        ("a1b22 3", "a#b#"),
        ("", ""),
    ],
)
def test_kind_is_what_names_have_in_common(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_one_task_has_its_name_and_many_have_their_kind_with_examples() -> None:
    root = TaskGroup("all")
    fill(root, "heartbeat", place="a.py:1 f → sleep")
    fill(root, *["connection"] * 9_998)
    fill(root, "room chat/a")
    fill(root, "player-1", "player-2")
    fill(root, *[f"bot {number}" for number in range(4)])
    assert list(lines_of(root)) == [
        "connection ×9,998",
        "bot ×4 (0, 1, 2, …)",
        "player-# ×2 (player-1, player-2)",
        "heartbeat  a.py:1 f → sleep",
        "room chat/a",
    ]


def test_children_of_alike_tasks_are_together_below_them() -> None:
    root = TaskGroup("all")
    for _ in range(3):
        fill(fill(root, "connection"), "writer")
    fill(root, "connection", place="elsewhere")
    assert list(lines_of(root)) == ["connection ×3", "  writer ×3", "connection  elsewhere"]


def test_cancelled_ones_are_counted() -> None:
    root = TaskGroup("all")
    fill(root, "connection", "connection").cancelled = 1
    assert list(lines_of(root)) == ["connection ×2 [1 cancelled]"]


def test_what_a_name_may_hold_does_not_break_the_line() -> None:
    root = TaskGroup("all")
    fill(root, "a\n\x1b[2J " + "x" * 1_000)
    (line,) = lines_of(root)
    assert line.isprintable()
    assert line.startswith("a\\n\\x1b[2J xxx")
    assert len(line) == 60


def test_largest_groups_are_shown_and_the_others_are_counted() -> None:
    root = TaskGroup("all")
    for number in range(26):
        fill(root, *[chr(ord("a") + number) * 5] * (number + 1))
    lines = list(lines_of(root))
    assert lines[0] == "zzzzz ×26"
    assert len(lines) == 21
    assert lines[-1] == "… and 21 tasks in 6 other groups"


def test_groups_that_are_too_many_are_one() -> None:
    root = TaskGroup("all")
    names = ["x" * (number + 1) for number in range(600)]
    for name in names:
        fill(fill(root, name), "child")
    assert len(root.groups) == 501
    assert root.total() == 1_200
    assert next(lines_of(root)).startswith("others ×100 (")


def test_lines_are_bounded_and_the_deepest_are_left_out() -> None:
    root = TaskGroup("all")
    for first in "abcdefghijklmnopqrst":
        group = fill(root, first)
        for second in "abcdefghijklmnopqrst":
            fill(fill(group, second), "third")
    lines = list(lines_of(root))
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if line[0] in "abcdefghijklmnopqrst"][-1].startswith("t")
    assert any(line.endswith(" below]") for line in lines)
    assert len(list(lines_of(root, 10_000))) == 20 + 400 + 400


def test_what_is_too_deep_counts_with_the_last() -> None:
    root = group = TaskGroup("all")
    for _ in range(100):
        below = group.below("key", "nested")
        if below is not group:
            below.add("nested")
        group = below
    lines = list(lines_of(root))
    assert len(lines) == 40
    assert lines[-1].strip() == "nested [60 deeper]"
    assert root.total() == 100
