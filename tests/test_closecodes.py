from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioroom.closecodes import MAX_REASON_BYTES, CloseCode, clip_reason, is_valid_on_wire, should_reconnect

REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "close-codes.md"


def test_catalogue_gives_each_number_one_name() -> None:
    assert list(CloseCode.__members__) == [code.name for code in CloseCode]


def test_codes_on_the_wire_are_those_of_the_registry_and_the_open_ranges() -> None:
    registered = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
    valid = {code for code in range(-1, 70_000) if is_valid_on_wire(code)}
    assert valid == registered | set(range(3000, 5000))


def test_catalogue_holds_two_codes_that_never_travel() -> None:
    assert {code for code in CloseCode if not is_valid_on_wire(code)} == {CloseCode.NO_STATUS, CloseCode.ABNORMAL}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (range(4000, 4100), False),
        (range(4100, 4200), True),
        (range(4200, 4300), True),
        ((1000, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 1014, 1015, 3000, 3999, 0), False),
        ((1001, 1006, 1011, 1012, 1013), True),
    ],
)
def test_code_tells_whether_to_come_back(codes: range | tuple[int, ...], expected: bool) -> None:
    assert {code for code in codes if should_reconnect(code) is not expected} == set()


def test_reference_says_the_same_about_coming_back() -> None:
    rows = re.findall(r"^\| (\d{4}) \| `\w+` \|.*\| ([^|]+) \|$", REFERENCE.read_text("utf-8"), re.M)
    assert len(rows) == len(CloseCode)
    assert {int(code): answer != "no" for code, answer in rows} == {code: should_reconnect(code) for code in CloseCode}


def test_reason_of_the_largest_size_is_kept_and_one_byte_more_is_cut() -> None:
    assert MAX_REASON_BYTES == 123
    assert clip_reason("") == b""
    assert clip_reason("x" * 123) == b"x" * 123
    assert clip_reason("x" * 124) == b"x" * 123


@pytest.mark.parametrize(("character", "kept"), [("é", 122), ("€", 123), ("😀", 120)])
def test_reason_is_cut_between_characters(character: str, kept: int) -> None:
    clipped = clip_reason(character * 100)
    assert len(clipped) == kept
    assert clipped.decode() == character * (kept // len(character.encode()))


@given(st.text(max_size=200))
@example("x" * 121 + "€")
def test_clipped_reason_is_the_longest_beginning_that_fits(reason: str) -> None:
    kept = clip_reason(reason).decode()
    assert reason.startswith(kept)
    assert len(kept.encode()) <= 123
    assert kept == reason or len(reason[: len(kept) + 1].encode()) > 123


def test_reason_with_half_a_surrogate_pair_is_still_utf_8() -> None:
    """Such text comes from file names and broken JSON; a connection that closes must not fail over it."""
    clipped = clip_reason("no such file: \udc80")
    assert clipped.decode().startswith("no such file: ")
