"""The operators' secret: what is one, and that nothing shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.api_key import ApiKey

KEY = "correct-horse-battery"


@given(st.text())
def test_nothing_but_the_key_opens(shown: str) -> None:
    assert ApiKey(KEY).opens(shown) == (shown == KEY)


def test_key_opens() -> None:
    assert ApiKey(KEY).opens(KEY)


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("short", "5 characters can be guessed"),
        (KEY + " ", "has a space"),
        (KEY + "é", "not ASCII"),
        ("", "0 characters"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(key: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        ApiKey(key)
    assert not key or key not in str(caught.value)


def test_no_repr_shows_it() -> None:
    assert KEY not in repr(ApiKey(KEY))
