"""Errors inside errors are found, however deep."""

from __future__ import annotations

from trioroom._core.causes import first_of, leaves_of, root_of

ONE, TWO, THREE = OSError("one"), ValueError("two"), KeyError("three")
GROUP = ExceptionGroup("outer", [ExceptionGroup("inner", [ONE, TWO]), THREE])


def test_leaves_are_those_of_all_levels_in_order() -> None:
    assert leaves_of(GROUP) == [ONE, TWO, THREE]


def test_first_is_the_first_leaf_or_the_error_itself() -> None:
    assert first_of(GROUP) is ONE
    assert first_of(THREE) is THREE


def test_root_is_behind_causes_and_groups() -> None:
    wrapped = RuntimeError("cannot connect")
    wrapped.__cause__ = GROUP
    assert root_of(wrapped) is ONE
    assert root_of(THREE) is THREE
