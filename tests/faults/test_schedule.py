"""The schedule: a function of the seed, within its bounds."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.faults.schedule import KINDS, NODES, WARM_UP, Fault, plan

seeds = st.integers(0, 1 << 32)
minutes = st.floats(0.1, 5.0)


@given(seeds, minutes)
def test_same_seed_is_the_same_schedule(seed: int, minutes: float) -> None:
    assert plan(seed, minutes) == plan(seed, minutes)


@given(seeds, minutes)
def test_faults_come_in_order_and_are_over_at_the_end(seed: int, minutes: float) -> None:
    faults = plan(seed, minutes)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(round(fault.at + fault.lasts, 1) <= minutes * 60 + 0.1 for fault in faults)
    assert all(fault.at >= WARM_UP for fault in faults)


@given(seeds, minutes)
def test_faults_are_within_the_bounds_of_their_kind(seed: int, minutes: float) -> None:
    for fault in plan(seed, minutes):
        kind = KINDS[fault.kind]
        assert 0 <= fault.lasts <= kind.lasts[1]
        assert kind.count[0] <= fault.count <= kind.count[1]
        assert (fault.node is None) if kind.hits == "broker" else fault.node in range(NODES)


@given(seeds, minutes)
def test_what_is_hit_is_not_hit_again_meanwhile(seed: int, minutes: float) -> None:
    hits: defaultdict[tuple[str, int | None], list[Fault]] = defaultdict(list)
    for fault in plan(seed, minutes):
        if KINDS[fault.kind].hits != "members":
            hits[KINDS[fault.kind].hits, fault.node].append(fault)
    for faults in hits.values():
        for one, other in pairwise(faults):
            assert one.at + one.lasts <= other.at + 0.05


def test_seeds_differ_and_every_kind_comes() -> None:
    plans = [plan(seed, 1.0) for seed in range(30)]
    assert len({*plans}) == len(plans)
    assert {fault.kind for faults in plans for fault in faults} == {*KINDS}
