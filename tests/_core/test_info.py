"""What a user shows of itself."""

from __future__ import annotations

import pytest

from trioroom._core.info import MAX_INFO_BYTES, MAX_USER_CHARACTERS, NOTHING, check_user, decode_info, encode_info


@pytest.mark.parametrize("info", [None, "x", 7, {"name": "Änn", "tags": [1, 2.5, True]}, "x" * (MAX_INFO_BYTES - 2)])
def test_info_comes_back(info: object) -> None:
    assert decode_info(encode_info(info)) == info


def test_nothing_is_the_shortest() -> None:
    assert encode_info(None) == NOTHING


@pytest.mark.parametrize("info", ["x" * (MAX_INFO_BYTES - 1), 1 << 64, {"n": -(1 << 64)}, "\ud800"])
def test_info_that_cannot_be_sent_is_a_wrong_value(info: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_info(info)


def test_info_that_is_no_json_is_of_the_wrong_type() -> None:
    with pytest.raises(TypeError):
        encode_info(object())


@pytest.mark.parametrize("encoded", [b"", b"{", b'"\xff"', b"[" * 100_000])
def test_what_is_no_json_shows_nothing(encoded: bytes) -> None:
    assert decode_info(encoded) is None


def test_user_is_a_string_that_can_be_sent() -> None:
    assert check_user("x" * MAX_USER_CHARACTERS)
    for wrong in ("", "x" * (MAX_USER_CHARACTERS + 1), "\ud800"):
        with pytest.raises(ValueError, match=r"."):
            check_user(wrong)
    with pytest.raises(TypeError, match="string"):
        check_user(7)
