"""Each guarantee names tests that exist, and each group of them says what is not given."""

from __future__ import annotations

import re

import pytest

from tests.docs.named_tests import ROOT, check_named

PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text("utf-8")
GIVEN, _, SHOWN = PAGE.partition("## Which test shows which\n")
GUARANTEES = re.findall(r"^- \*\*(\w+)\*\* ", GIVEN, re.M)
ROWS = dict(re.findall(r"^\| ([A-Z]\d+) \| (.*) \|$", SHOWN, re.M))


def test_there_are_guarantees_to_speak_of() -> None:
    assert len(GUARANTEES) > 30


def test_each_has_a_row_in_their_order() -> None:
    assert [*ROWS] == GUARANTEES


@pytest.mark.parametrize("name", ROWS)
def test_guarantee_has_a_test(name: str) -> None:
    check_named(ROWS[name])


@pytest.mark.parametrize("group", re.split(r"^## ", GIVEN, flags=re.M)[1:], ids=lambda group: group.partition("\n")[0])
def test_group_has_names_of_its_own_and_says_what_is_not_given(group: str) -> None:
    given, not_given, lacking = group.partition("\nNot given:\n")
    letters = re.findall(r"^- \*\*([A-Z])(\d+)\*\*", given, re.M)
    assert letters == [(letters[0][0], str(number)) for number in range(1, len(letters) + 1)]
    assert not_given
    assert lacking.count("\n- ") > 0
