"""Which server is tried next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.nats.connection import ServerInfo
from trioroom.backplane.nats.servers import Servers
from trioroom.backplane.url import Endpoint

A, B, C = Endpoint("a", 1), Endpoint("b", 2), Endpoint("10.0.0.3", 4222)


def test_all_of_the_url_are_tried_in_any_order() -> None:
    orders = {tuple(Servers([A, B]).in_turn()) for _ in range(100)}
    assert orders == {(A, B), (B, A)}


def test_those_that_are_told_come_too_and_the_one_that_was_used_comes_last() -> None:
    servers = Servers([A])
    assert not servers.has_others
    servers.learn(A, ServerInfo(addresses=("b:2", "10.0.0.3", "a:1", "b:2")))
    assert servers.has_others
    assert servers.in_turn()[-1] == A
    assert {*servers.in_turn()} == {A, B, C}
    assert len(servers.in_turn()) == 3
    servers.learn(C, ServerInfo(addresses=("10.0.0.3:4222",)))
    assert servers.in_turn() == [A, C]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_whatever_is_told_leaves_those_of_the_url(addresses: list[str]) -> None:
    servers = Servers([A, B])
    servers.learn(A, ServerInfo(addresses=tuple(addresses)))
    assert {A, B} <= {*servers.in_turn()}
    assert servers.in_turn()[-1] == A


def test_one_told_by_its_address_only_has_to_show_the_certificate_of_the_first() -> None:
    servers = Servers([A, B])
    assert (servers.hostname_of(A), servers.hostname_of(C), servers.hostname_of(Endpoint("d", 1))) == (None, "a", None)
