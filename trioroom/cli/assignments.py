"""Settings as text: ``NAME=VALUE``, as the option ``--set`` takes them."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import attrs

from trioroom.settings import Settings


def parse_settings(assignments: Sequence[str]) -> Settings:
    """The default settings with ``assignments`` made, each ``NAME=VALUE``; of several for one name the last counts.

    What the type of a setting says decides how its value reads: ``none`` where it may be None, ``inf`` where it
    may be a float, ``true`` or ``false``, a text as it is, several with commas between them.

    Raises:
        TypeError: the settings do not want such a value.
        ValueError: no such setting, or no such value.
    """
    kinds = get_type_hints(Settings)
    names = [field.name for field in attrs.fields(Settings)]
    chosen: dict[str, Any] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in names:
            raise ValueError(f"no setting is called {name!r}; there are: {', '.join(names)}")
        try:
            chosen[name] = _parse(kinds[name], text)
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from exc
    return Settings(**chosen)


def _parse(kind: Any, text: str) -> object:
    """``text`` as a value of the type ``kind``, which may be a union."""
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if types.NoneType in kinds and text == "none":
        return None
    if bool in kinds:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    if float in kinds:
        return float(text)
    if int in kinds:
        return int(text)
    if str in kinds:
        return text
    return tuple(text.split(","))
