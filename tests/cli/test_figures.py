from __future__ import annotations

import pytest

from trioroom.cli import figures


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.count, 0, "0"),
        (figures.count, 9_999, "9,999"),
        (figures.count, 10_000, "10.0k"),
        (figures.count, 999_600, "1.00M"),
        (figures.count, 12_345_678, "12.3M"),
        (figures.count, 3e15, "3000T"),
        (figures.rate, 0, "0"),
        (figures.rate, 0.04, "<0.1"),
        (figures.rate, 9.9, "9.9"),
        (figures.rate, 9.96, "10"),
        (figures.rate, 1_388_000, "1.39M"),
        (figures.size, 0, "0 B"),
        (figures.size, 1_023, "1023 B"),
        (figures.size, 65_536, "64.0 KiB"),
        (figures.size, 3e15, "2728 TiB"),
        (figures.lag, 0, "0 ms"),
        (figures.lag, 0.0004, "0.4 ms"),
        (figures.lag, 0.012, "12 ms"),
        (figures.lag, 12.34, "12.3 s"),
        (figures.lag, 100, "1m 40s"),
        (figures.duration, 0.5, "0s"),
        (figures.duration, 3_661, "1h 1m"),
        (figures.duration, 86_400 * 400, "400d 0h"),
        (figures.percent, 0.004, "0.4 %"),
        (figures.percent, 1.02, "102 %"),
    ],
)
def test_numbers_are_short(write: object, value: float, text: str) -> None:
    assert write(value) == text  # type: ignore[operator]


@pytest.mark.parametrize("name", ["count", "rate", "size", "lag", "duration", "percent"])
def test_what_is_not_known_is_a_dash(name: str) -> None:
    assert getattr(figures, name)(None) == figures.NOTHING


def test_bound_stands_beside() -> None:
    assert figures.of(5, 20_000) == "5/20.0k"
    assert figures.of(5, None) == "5"
