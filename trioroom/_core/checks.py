"""Checks of what a user sets, with messages that name the setting, the value, and what to write instead.

Those of attrs name the type (``must be <class 'int'>``), and a comparison with a text names nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from attrs import validators

Check = Callable[[object, "attrs.Attribute[Any]", Any], Any]
"""What attrs takes as a validator of a field, of whatever type that is; hence Any."""


def whole_number(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise TypeError unless it is an int; True is none here."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{attribute.name}={value!r} must be a whole number")


def number(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise TypeError unless it is an int or a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{attribute.name}={value!r} must be a number")


def true_or_false(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise TypeError unless it is a bool: the text ``false`` would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name}={value!r} must be True or False")


def one_of(*choices: object) -> Check:
    """A check that raises ValueError for all but ``choices``."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in choices:
            raise ValueError(f"{attribute.name}={value!r} must be one of {', '.join(map(repr, choices))}")

    return check


def texts(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise TypeError unless it is a tuple of texts; one text is none, though it is made of texts."""
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        example = repr([value] if isinstance(value, str) else ["...", "..."])
        raise TypeError(f"{attribute.name}={value!r} must be several texts; write {attribute.name}={example}")


def tuple_of(value: Any) -> Any:  # Iterable[str] -> tuple[str, ...] for a type checker, which is not all that comes
    """A converter: whatever has items becomes a tuple of them, but for a text. All else is for `texts` to refuse."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value


COUNT: Check = validators.and_(whole_number, validators.gt(0))
"""A whole number, 1 or more."""
POSITIVE: Check = validators.and_(number, validators.gt(0))
"""A number above zero, such as seconds; ``math.inf`` is one."""
