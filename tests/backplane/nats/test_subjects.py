"""One token for each name, and none for two."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.nats.subjects import Names, token_of
from trioroom.testing.conformance import NAMES

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(".*>= /-_%\r\n")), max_size=20)


@given(TEXTS)
def test_token_can_be_read_back_and_has_nothing_that_means_something_there(text: str) -> None:
    token = token_of(text)
    assert re.fullmatch(r"[-/_=A-Za-z0-9]+", token)  # as a key of a bucket has to be, but for the dot
    read = re.sub(rb"=([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), token.encode())
    assert read.decode() == (text or "=")


@given(TEXTS, TEXTS)
def test_different_names_have_different_tokens(one: str, other: str) -> None:
    assert (token_of(one) == token_of(other)) == (one == other)


def test_what_an_app_calls_its_rooms_mostly_stays_as_it_is() -> None:
    assert token_of("chat/lobby-7_b") == "chat/lobby-7_b"
    assert len({token_of(name) for name in NAMES}) == len(NAMES)
    assert token_of("ä.b") == "=C3=A4=2Eb"


@pytest.mark.parametrize("prefix", ["shop", "a-b_c"])
def test_names_begin_with_the_prefix(prefix: str) -> None:
    names = Names(prefix)
    for name in (names.relay, names.put, names.got, names.history(1), names.keep(1), names.kept(1)):
        assert name.startswith(prefix)
    assert names.leaders_of(names.relay).endswith(names.relay)
