"""The window of a room's history against a plain list, and what it costs its budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.budget import Budget
from trioroom._core.history import History, Kept, Page, Position, same_place
from trioroom._core.window import ENTRY_BYTES, Window


def kept(first: int, last: int, age: float = 0.0) -> tuple[Kept, ...]:
    return tuple(Kept("e", offset, b"%d" % offset, age) for offset in range(first, last + 1))


def page(first: int, last: int, *, start: int = 0, end: int = 100, epoch: str = "e") -> Page:
    return Page(Position(epoch, end), None, start, kept(first, last))


def make_window(position: int = 0, size: int = 5, ttl: float = 60.0) -> tuple[Window, Budget]:
    budget = Budget(math.inf)
    window = Window(History(size, ttl), budget)
    window.go_on_from(Position("e", position), None)
    return window, budget


def offsets(window: Window, after: int = 0) -> list[int]:
    return [entry.offset for entry in window.after(max(after, window.start))]


@given(st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["expire", "forget", "back"])), max_size=30))
def test_it_holds_the_latest_without_a_hole(acts: list[int | str]) -> None:
    window, budget = make_window(position=50)
    model: list[int] = []
    end, now = 50, 0.0
    for act in acts:
        now += 10
        if isinstance(act, int):
            window.append(kept(end + 1, end + act), now)
            model += range(end + 1, end + act + 1)
            end += act
            model = model[-5:]
        elif act == "expire":
            window.expire(now + 100)
            model = []
        elif act == "forget":
            window.forget()
            model = []
        else:
            first = model[0] if model else end + 1
            assert window.extend_back(page(first - 3, first - 1, end=end), now)
            model = list(range(max(first - 3, end - 4), end + 1))
        assert offsets(window) == model
        assert (window.position.offset, window.start) == (end, end - len(model))
        assert budget.used == window.queued_bytes == sum(len(b"%d" % n) + ENTRY_BYTES for n in model)
    window.forget()
    assert budget.used == 0


def test_entries_go_when_they_are_older_than_the_ttl() -> None:
    window, _ = make_window()
    window.append(kept(1, 1, age=59.0), now=100.0)
    window.append(kept(2, 2), now=100.0)
    window.expire(100.5)
    assert offsets(window) == [1, 2]
    window.expire(101.5)
    assert (offsets(window), window.complete) == ([2], True)


@pytest.mark.parametrize(
    "stale",
    [page(1, 5, end=8), page(1, 4, end=10), page(1, 6, epoch="another")],
    ids=["ends before us", "does not reach us", "is of another epoch"],
)
def test_page_that_does_not_fit_is_left(stale: Page) -> None:
    window, _ = make_window(position=6)
    window.append(kept(7, 10), now=0.0)
    before = offsets(window)
    assert window.extend_back(stale, 0.0) is False
    assert offsets(window) == before


def test_window_that_is_full_is_complete_whatever_else_is_held() -> None:
    window, _ = make_window(position=20)
    window.append(kept(21, 20 + window.history.size), now=0.0)
    assert window.extend_back(page(1, 20, end=20 + window.history.size), 0.0)
    assert (window.complete, window.start) == (True, 20)


def test_nothing_before_it_means_that_it_is_complete() -> None:
    window, _ = make_window(position=6)
    assert window.extend_back(Page(Position("e", 6), None, 6, ()), 0.0)
    assert window.complete
    window.forget()
    assert not window.complete


def test_going_on_in_an_epoch_that_follows_ours_keeps_what_is_held() -> None:
    window, _ = make_window()
    window.append(kept(1, 3), now=0.0)
    window.go_on_from(Position("f", 3), Position("e", 3))
    assert (offsets(window), window.position) == ([1, 2, 3], Position("f", 3))
    window.go_on_from(Position("g", 3), None)
    assert (offsets(window), window.start) == ([], 3)


@pytest.mark.parametrize(
    ("position", "here"),
    [
        (Position("f", 0), Position("f", 0)),
        (Position("f", 9), Position("f", 9)),
        (Position("f", 10), None),
        (Position("f", -1), None),
        (Position("e", 5), Position("f", 5)),
        (Position("e", 6), None),
        (Position("d", 1), None),
    ],
)
def test_position_is_known_in_its_epoch_and_up_to_where_the_next_went_on(
    position: Position, here: Position | None
) -> None:
    assert same_place(position, Position("f", 9), Position("e", 5)) == here
    if position.epoch != "f":
        assert same_place(position, Position("f", 9), None) is None
