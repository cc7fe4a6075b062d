from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.leaders import Leaders, take_in_turn


@given(st.lists(st.integers(-2, 9)), st.integers(1, 5))
def test_highest_numbers_above_zero_lead(numbers: list[int], size: int) -> None:
    leaders: Leaders[int] = Leaders(size)
    for number in numbers:
        leaders.put(number, number)
    assert list(leaders) == sorted((number for number in numbers if number > 0), reverse=True)[:size]


@given(st.lists(st.integers(-2, 9)))
def test_what_does_not_exceed_the_floor_may_be_left_out(numbers: list[int]) -> None:
    all_put: Leaders[int] = Leaders(3)
    some_put: Leaders[int] = Leaders(3)
    for place, number in enumerate(numbers):
        all_put.put(number, place)
        if number > some_put.floor:
            some_put.put(number, place)
    assert list(some_put) == list(all_put)


def test_of_equals_the_first_to_come_lead() -> None:
    leaders: Leaders[str] = Leaders(2)
    for item in "abc":
        leaders.put(1, item)
    assert list(leaders) == ["a", "b"]


def test_lists_are_taken_from_in_turn_and_nothing_twice() -> None:
    assert take_in_turn(["abc", "xa", ""], 4) == ["a", "x", "b", "c"]
    assert take_in_turn(["abc", "xa", ""], 2) == ["a", "x"]
    assert take_in_turn([], 2) == []


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=4), st.integers(0, 8))
def test_each_list_gives_its_first(lists: list[list[int]], size: int) -> None:
    taken = take_in_turn(lists, size)
    assert max(Counter(taken).values(), default=1) == 1
    assert len(taken) == min(size, len({item for each in lists for item in each}))
    if size >= len(lists):
        assert {each[0] for each in lists if each} <= set(taken)
