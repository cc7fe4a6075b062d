"""What a user sets and is of no use is refused in words that name it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from trioroom._core.checks import COUNT, POSITIVE, number, one_of, texts, true_or_false, tuple_of, whole_number


@attrs.frozen(kw_only=True)
class Example:
    count: Any = attrs.field(default=1, validator=COUNT)
    whole: Any = attrs.field(default=0, validator=whole_number)
    seconds: Any = attrs.field(default=1.0, validator=POSITIVE)
    degrees: Any = attrs.field(default=0.0, validator=number)
    switch: Any = attrs.field(default=False, validator=true_or_false)
    colour: Any = attrs.field(default="red", validator=one_of("red", "blue"))
    names: Any = attrs.field(default=(), converter=tuple_of, validator=texts)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"count": None}, "count=None must be a whole number"),
        ({"count": 0}, "'count' must be > 0: 0"),
        ({"whole": 1.0}, "whole=1.0 must be a whole number"),
        ({"whole": True}, "whole=True must be a whole number"),
        ({"seconds": "1"}, "seconds='1' must be a number"),
        ({"seconds": float("nan")}, "'seconds' must be > 0: nan"),
        ({"degrees": False}, "degrees=False must be a number"),
        ({"switch": 1}, "switch=1 must be True or False"),
        ({"colour": ["red"]}, "colour=['red'] must be one of 'red', 'blue'"),
        ({"names": "ann"}, "names='ann' must be several texts; write names=['ann']"),
        ({"names": b"ann"}, "names=b'ann' must be several texts; write names=['...', '...']"),
        ({"names": ["ann", None]}, "names=('ann', None) must be several texts; write names=['...', '...']"),
    ],
)
def test_what_is_wrong_is_named_with_what_it_must_be(changes: dict[str, object], told: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        Example(**changes)
    assert str(raised.value) == told


def test_what_is_right_is_taken() -> None:
    example = Example(count=3, whole=-1, seconds=2, degrees=-0.5, switch=True, colour="blue", names={"ann"})
    assert attrs.astuple(example) == (3, -1, 2, -0.5, True, "blue", ("ann",))
