"""Bounds and deadlines are checked where they enter."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from trioroom.backplane.redis import RedisSettings
from trioroom.backplane.redis.location import parse_location

NUMBERS = [field.name for field in attrs.fields(RedisSettings) if field.name != "prefix"]
COUNTS = [name for name in NUMBERS if name.startswith("max_") and name != "max_backoff"]


def settings_with(name: str, value: Any) -> RedisSettings:
    return RedisSettings(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, -math.inf])
def test_nothing_may_be_zero_or_less(name: str, value: float) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        settings_with(name, value)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_whole(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        settings_with(name, 1.5)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - {*COUNTS, "presence_lease"}))
def test_seconds_may_be_infinite(name: str) -> None:
    assert getattr(settings_with(name, math.inf), name) == math.inf


@pytest.mark.parametrize("lease", [math.inf, math.nan, 0.999, 86_401, 0, -1])
def test_lease_is_between_a_second_and_a_day(lease: float) -> None:
    with pytest.raises(ValueError, match=r"^'presence_lease' must be [<>]= (1\.0|86400\.0): "):
        RedisSettings(presence_lease=lease)
    with pytest.raises(ValueError, match="presence_lease"):
        parse_location(f"redis://host?presence_lease={lease}", None)
    assert RedisSettings(presence_lease=1).presence_lease == 1
    assert RedisSettings(presence_lease=86_400).presence_lease == 86_400


def test_prefix_has_to_be_one() -> None:
    with pytest.raises(ValueError, match="prefix"):
        RedisSettings(prefix="")


@pytest.mark.parametrize("prefix", ["{shop}", "shop}", "{"])
def test_prefix_with_a_brace_is_refused_as_it_would_put_all_rooms_into_one_slot(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"^prefix=.* has a brace, .* write it without$"):
        RedisSettings(prefix=prefix)
