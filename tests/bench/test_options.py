from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.bench.options import DEFAULT_MEMBERS, BenchOptions, Protocol, Scenario


@given(st.integers(1, 5_000), st.integers(1, 20), st.sampled_from([Scenario.IDLE, Scenario.ROOMS]))
def test_shares_are_all_members_and_whole_rooms(units: int, processes: int, scenario: Scenario) -> None:
    size = 5 if scenario is Scenario.ROOMS else 1
    processes = min(processes, units)
    options = BenchOptions(scenario=scenario, members=units * size, processes=processes)
    shares = options.shares
    assert [share.first for share in shares[1:]] == [share.end for share in shares[:-1]]
    assert (shares[0].first, shares[-1].end) == (0, units * size)
    assert max(share.members for share in shares) - min(share.members for share in shares) <= size
    assert all(share.members % size == 0 for share in shares)
    assert sum(share.rate for share in shares) == pytest.approx(options.rate)


def test_members_that_fill_no_room_are_left_out() -> None:
    (share,) = BenchOptions(scenario=Scenario.ROOMS, members=13).shares
    assert share.members == 10


@pytest.mark.parametrize(
    ("scenario", "changed", "complaint"),
    [
        (Scenario.RECOVERY, {}, "add --protocol v1"),
        (Scenario.FANOUT, {"members": 1}, "give 2 --members"),
        (Scenario.IDLE, {"members": 3, "processes": 4}, "too few for 4 processes"),
        (Scenario.ROOMS, {"members": 4}, "too few for 1 processes"),
        (Scenario.IDLE, {"members": 0}, "must be > 0"),
        (Scenario.IDLE, {"duration": float("inf")}, "must be < inf"),
    ],
)
def test_what_cannot_be_is_refused(scenario: Scenario, changed: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BenchOptions(scenario=scenario, **{"members": 10, **changed})  # type: ignore[arg-type]  # of several types


def test_every_scenario_has_a_default_that_it_takes() -> None:
    for scenario in Scenario:
        protocol = Protocol.V1 if scenario is Scenario.RECOVERY else Protocol.PLAIN
        assert BenchOptions(scenario=scenario, members=DEFAULT_MEMBERS[scenario], protocol=protocol).shares
