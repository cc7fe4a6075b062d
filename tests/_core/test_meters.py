from __future__ import annotations

import pytest

from trioroom import CloseCode
from trioroom._core.meters import GAP_REASONS, OTHER, Meters, closed_by_code
from trioroom._core.overflow import SlowConsumer, Tally


def test_connection_is_counted_while_it_is_open_and_by_its_end() -> None:
    meters = Meters()
    for _ in range(3):
        meters.open("plain")
    meters.close("plain", CloseCode.NORMAL)
    assert (meters.opened, meters.connections["plain"]) == (3, 2)
    assert closed_by_code(meters.closed)["1000"] == 1


@pytest.mark.parametrize("code", [0, 999, 1004, 1016, 2999, 3000, 3999, 4050, 4999, 65_535])
def test_codes_of_a_peers_own_choice_are_one(code: int) -> None:
    meters = Meters()
    meters.open("plain")
    meters.close("plain", code)
    closed = closed_by_code(meters.closed)
    assert closed[OTHER] == sum(closed.values()) == 1
    assert closed.keys() == {*(str(known.value) for known in CloseCode), OTHER}


def test_reasons_of_a_backplanes_own_choice_are_one() -> None:
    meters = Meters()
    for reason in (*GAP_REASONS, "sunspots", "", OTHER):
        meters.lose(reason)
    assert meters.gaps == {**dict.fromkeys(GAP_REASONS, 1), OTHER: 3}


def test_meters_of_two_servers_have_nothing_in_common() -> None:
    one, other = Meters(), Meters()
    one.open("plain")
    one.timings.hooks["on_join"].observe(1)
    assert other.connections["plain"] == other.timings.hooks["on_join"].count == 0


def test_what_is_dropped_with_a_connection_is_told_apart_by_the_cause() -> None:
    tally = Tally(dropped=1)
    for messages, cause in enumerate(SlowConsumer, start=1):
        tally.drop(messages, cause)
    assert (tally.dropped, tally.dropped_for_memory, tally.dropped_for_silence) == (7, 2, 3)
