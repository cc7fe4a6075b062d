"""Admission: counted against a naive model, which keeps everybody in a list, and all times at which somebody came."""

from __future__ import annotations

import ipaddress
import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trioroom._core.admission import Admission, Place, Verdict, network_of, reserved_descriptors

NETWORKS = [
    ["192.0.2.1", "::ffff:192.0.2.1"],
    ["192.0.2.2"],
    ["2001:db8::1", "2001:db8:0:0:ffff::", "2001:db8::192.0.2.1"],
    ["2001:db8:0:1::1"],
]
"""Addresses that count as one stand together."""
HOSTS = [(number, host) for number, hosts in enumerate(NETWORKS) for host in hosts]


LIMITS = st.sampled_from([1, 2, 4, 7, math.inf])
RATES = st.sampled_from([(0.5, 1), (1.0, 3), (math.inf, 1)])


class Bucket:
    """A token bucket as one would draw it."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens: float = burst
        self.seen = 0.0

    def has_one(self, now: float) -> bool:
        if self.rate < math.inf:
            self.tokens = min(self.burst, self.tokens + self.rate * (now - self.seen))
        self.seen = now
        return math.isinf(self.rate) or self.tokens > 1 - 1e-9

    def take(self) -> None:
        if self.rate < math.inf:
            self.tokens -= 1


class AdmissionComparison(RuleBasedStateMachine):
    """Connections come and go; small bounds, so that each is reached often."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.present: list[tuple[int | None, Place]] = []
        self.refused: list[Verdict] = []

    @initialize(limit=LIMITS, per_address=LIMITS, rate=RATES, address_rate=RATES)
    def open(self, limit: float, per_address: float, rate: tuple[float, int], address_rate: tuple[float, int]) -> None:
        self.admission = Admission(limit, per_address, rate, address_rate)
        self.limit, self.per_address = limit, per_address
        self.bucket = Bucket(*rate)
        self.buckets = {number: Bucket(*address_rate) for number in range(len(NETWORKS))}

    @rule(seconds=st.sampled_from([0.25, 0.5, 1, 2, 5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def expected_of_address(self, network: int) -> Verdict:
        if [other for other, _ in self.present].count(network) >= self.per_address:
            return Verdict.ADDRESS_FULL
        return Verdict.ADMITTED if self.buckets[network].has_one(self.now) else Verdict.ADDRESS_RATE

    def expected_of_all(self) -> Verdict:
        if len(self.present) >= self.limit:
            return Verdict.FULL
        return Verdict.ADMITTED if self.bucket.has_one(self.now) else Verdict.RATE

    @rule(origin=st.sampled_from(HOSTS))
    def come(self, origin: tuple[int, str]) -> None:
        network, host = origin
        expected = self.expected_of_all()
        if expected is Verdict.ADMITTED:
            expected = self.expected_of_address(network)
        assert self.admission.enter(host, self.now) is expected
        if expected is Verdict.ADMITTED:
            self.bucket.take()
            self.buckets[network].take()
            self.present.append((network, self.admission.place(host)))
        else:
            self.refused.append(expected)

    @rule(origin=st.sampled_from(HOSTS))
    def come_by_a_proxy(self, origin: tuple[int, str]) -> None:
        """Where from is known only later, and where that is over its bound the place is given back."""
        expected = self.expected_of_all()
        assert self.admission.enter(None, self.now) is expected
        if expected is not Verdict.ADMITTED:
            self.refused.append(expected)
            return
        self.bucket.take()
        network, host = origin
        place = self.admission.place(None)
        expected = self.expected_of_address(network)
        assert place.claim(host, self.now) is expected
        if expected is Verdict.ADMITTED:
            self.buckets[network].take()
            self.present.append((network, place))
        else:
            self.refused.append(expected)
            place.leave()

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        _, place = self.present.pop(data.draw(st.integers(0, len(self.present) - 1)))
        place.leave()

    @rule(host=st.sampled_from(HOSTS))
    def who_waits_as_long_as_told_finds_a_token(self, host: tuple[int, str]) -> None:
        network, address = host
        for verdict, bucket in ((Verdict.RATE, self.bucket), (Verdict.ADDRESS_RATE, self.buckets[network])):
            due_in = self.admission.due_in(verdict, address, self.now)
            missing = 0.0 if bucket.has_one(self.now) else (1 - bucket.tokens) / bucket.rate
            assert due_in == pytest.approx(missing, abs=1e-3)

    @invariant()
    def agree(self) -> None:
        assert self.admission.present == len(self.present)
        assert self.admission.refused == {verdict: self.refused.count(verdict) for verdict in set(self.refused)}

    def teardown(self) -> None:
        for _, place in self.present:
            place.leave()
        if hasattr(self, "admission"):
            assert self.admission.present == 0
            assert not self.admission._by_network, "an address that is gone must cost nothing"


TestAdmission = pytest.mark.untraced(AdmissionComparison.TestCase)


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
        assert admission.enter(host, 0.0) is Verdict.ADMITTED
    assert admission.place("192.0.2.1") is admission.place("192.0.2.2")
    assert admission.place(None).claim("192.0.2.3", 0.0) is Verdict.ADMITTED
    assert not admission._by_network
    assert admission._rates is None


def test_one_address_does_not_use_up_what_all_may_come() -> None:
    admission = Admission(math.inf, math.inf, (1.0, 10), (1.0, 2))
    verdicts = [admission.enter("192.0.2.1", 0.0) for _ in range(100)]
    assert verdicts.count(Verdict.ADMITTED) == 2
    assert verdicts.count(Verdict.ADDRESS_RATE) == 98
    assert admission.enter("192.0.2.2", 0.0) is Verdict.ADMITTED


def test_where_no_bucket_is_behind_it_nobody_knows_when_there_is_a_place() -> None:
    admission = Admission(1, 1)
    assert admission.due_in(Verdict.FULL, "192.0.2.1", 0.0) == 0
    assert admission.due_in(Verdict.ADDRESS_RATE, "192.0.2.1", 0.0) == 0


@pytest.mark.parametrize(
    ("open_files", "reserved"),
    [(16, 4), (256, 64), (1_024, 256), (8_192, 2_048), (1_048_576, 2_048), (math.inf, 2_048)],
)
def test_reserve_is_a_quarter_of_a_small_limit_and_bounded_in_a_large_one(open_files: float, reserved: int) -> None:
    assert reserved_descriptors(open_files) == reserved
