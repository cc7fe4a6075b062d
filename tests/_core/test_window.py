"""The window of a room's history against a plain list, and what it costs its budget."""

from __future__ import annotations

import math
from itertools import accumulate

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


ACTS = st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["expire", "forget", "back"])), max_size=30)
DENSE = st.just(list(range(1, 300)))
OFFSETS = DENSE | st.lists(st.integers(1, 4), min_size=200, max_size=200).map(lambda steps: list(accumulate(steps)))


@given(ACTS, OFFSETS, st.booleans())
def test_it_holds_the_latest_and_misses_none(acts: list[int | str], numbers: list[int], told: bool) -> None:
    """Of a room whose publications have the offsets ``numbers``; ``told`` is whether pages say what they follow."""

    def publications(first: int, last: int) -> tuple[Kept, ...]:
        return tuple(
            Kept("e", numbers[n], b"%d" % n, 0.0, numbers[n - 1] if told else None) for n in range(first, last)
        )

    end, now, first = 50, 0.0, 50  # it holds those from ``first`` to ``end``, by their number
    window, budget = make_window(position=numbers[end - 1])
    for act in acts:
        now += 10
        if isinstance(act, int):
            window.append(publications(end, end + act), now)
            end += act
            first = max(first, end - 5)
        elif act == "expire":
            window.expire(now + 100)
            first = end
        elif act == "forget":
            window.forget()
            first = end
        else:
            before = Page(Position("e", numbers[end - 1]), None, 0, publications(first - 3, first))
            assert window.extend_back(before, window.start, now)
            first = max(first - 3, end - 5)
        assert offsets(window) == numbers[first:end]
        assert [entry.offset for entry in window.before(numbers[end - 1], 2)] == numbers[max(first, end - 3) : end - 1]
        assert window.position.offset == numbers[end - 1]
        assert numbers[first - 1] <= window.start < numbers[first], "nothing is between the two"
        assert budget.used == window.queued_bytes == sum(len(b"%d" % n) + ENTRY_BYTES for n in range(first, end))
        assert list(window.after(numbers[first - 1])) == list(window.after(window.start))
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
    ("stale", "before"),
    [(page(1, 6, end=8), 6), (page(1, 4, end=10), 4), (page(1, 6, epoch="another"), 6)],
    ids=["ends before us", "does not reach us", "is of another epoch"],
)
def test_page_that_does_not_fit_is_left(stale: Page, before: int) -> None:
    window, _ = make_window(position=6)
    window.append(kept(7, 10), now=0.0)
    held = offsets(window)
    assert window.extend_back(stale, before, 0.0) is False
    assert offsets(window) == held


def test_window_that_is_full_is_complete_whatever_else_is_held() -> None:
    window, _ = make_window(position=20)
    window.append(kept(21, 20 + window.history.size), now=0.0)
    assert window.extend_back(page(1, 20, end=20 + window.history.size), 20, 0.0)
    assert (window.complete, window.start) == (True, 20)


def test_nothing_before_it_means_that_it_is_complete() -> None:
    window, _ = make_window(position=6)
    assert window.extend_back(Page(Position("e", 6), None, 6, ()), 6, 0.0)
    assert window.complete
    window.forget()
    assert not window.complete


def test_place_up_to_which_nothing_is_held_is_reached() -> None:
    window, _ = make_window(position=60)
    assert window.extend_back(Page(Position("e", 60), None, 0, kept(50, 50)), 60, 0.0)
    assert (window.start, window.complete) == (49, False)
    assert window.extend_back(Page(Position("e", 60), None, 20, ()), 49, 0.0)
    assert (window.start, window.complete, offsets(window)) == (20, True, [50])


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
