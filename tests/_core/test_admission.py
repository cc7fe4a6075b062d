"""Admission: counted against a naive model, which keeps everybody in a list."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioroom._core.admission import Admission, Verdict, network_of, reserved_descriptors

NETWORKS = [
    ["192.0.2.1", "::ffff:192.0.2.1"],
    ["192.0.2.2"],
    ["2001:db8::1", "2001:db8:0:0:ffff::", "2001:db8::192.0.2.1"],
    ["2001:db8:0:1::1"],
]
"""Addresses that count as one stand together."""
HOSTS = [(number, host) for number, hosts in enumerate(NETWORKS) for host in hosts]


class AdmissionComparison(RuleBasedStateMachine):
    """Connections come and go; small bounds, so that each is reached often."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(math.inf, math.inf)
        self.limit: float = math.inf
        self.per_address: float = math.inf
        self.present: list[tuple[int, Callable[[], None]]] = []
        self.refused: list[Verdict] = []

    @precondition(lambda self: not self.present and not self.refused)
    @rule(limit=st.sampled_from([1, 2, 4, 7, math.inf]), per_address=st.sampled_from([1, 2, 3, math.inf]))
    def open(self, limit: float, per_address: float) -> None:
        self.admission = Admission(limit, per_address)
        self.limit, self.per_address = limit, per_address

    @rule(origin=st.sampled_from(HOSTS))
    def come(self, origin: tuple[int, str]) -> None:
        network, host = origin
        expected = Verdict.ADMITTED
        if len(self.present) >= self.limit:
            expected = Verdict.FULL
        elif [other for other, _ in self.present].count(network) >= self.per_address:
            expected = Verdict.ADDRESS_FULL
        assert self.admission.enter(host) is expected
        if expected is Verdict.ADMITTED:
            self.present.append((network, self.admission.leaver(host)))
        else:
            self.refused.append(expected)

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        _, leave = self.present.pop(data.draw(st.integers(0, len(self.present) - 1)))
        leave()

    @invariant()
    def agree(self) -> None:
        assert self.admission.present == len(self.present)
        assert self.admission.refused == {verdict: self.refused.count(verdict) for verdict in set(self.refused)}

    def teardown(self) -> None:
        for _, leave in self.present:
            leave()
        assert self.admission.present == 0
        assert not self.admission._by_network, "an address that is gone must cost nothing"


TestAdmission = AdmissionComparison.TestCase


@pytest.mark.parametrize("hosts", NETWORKS)
def test_addresses_of_one_owner_are_one_network(hosts: list[str]) -> None:
    others = {network_of(host) for other in NETWORKS if other is not hosts for host in other}
    networks = {network_of(host) for host in hosts}
    assert len(networks) == 1
    assert not networks & others


def test_address_of_a_link_is_understood() -> None:
    """As accept(2) gives it: with a zone."""
    assert network_of("fe80::1%eth0") == network_of("fe80::2")


def test_whatever_accept_may_give_is_understood() -> None:
    for number in (0, 1, 2**64, 2**128 - 1):
        assert network_of(str(ipaddress.IPv6Address(number)))


def test_while_addresses_have_no_bound_nothing_is_kept_for_a_connection() -> None:
    admission = Admission(10, math.inf)
    for host in ("192.0.2.1", "192.0.2.2"):
        assert admission.enter(host) is Verdict.ADMITTED
    assert admission.leaver("192.0.2.1") is admission.leaver("192.0.2.2")
    assert not admission._by_network


@pytest.mark.parametrize(
    ("open_files", "reserved"),
    [(16, 4), (256, 64), (1_024, 256), (8_192, 2_048), (1_048_576, 2_048), (math.inf, 2_048)],
)
def test_reserve_is_a_quarter_of_a_small_limit_and_bounded_in_a_large_one(open_files: float, reserved: int) -> None:
    assert reserved_descriptors(open_files) == reserved
