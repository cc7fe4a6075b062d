"""Settings from what is written: ``NAME=VALUE`` as ``--set`` takes it, variables, and the values of a TOML file."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Final, get_args, get_type_hints

import attrs

from trioroom.cli.suggestions import did_you_mean
from trioroom.settings import Settings

NAMES: Final = tuple(field.name for field in attrs.fields(Settings))
"""Of all settings."""
_KINDS: Final = get_type_hints(Settings)
_TOML_WORDS: Final = ((bool, "true or false"), (float, "a number"), (int, "a whole number"), (str, "text"))


def parse_settings(assignments: Sequence[str]) -> Settings:
    """The default settings with ``assignments`` made, each ``NAME=VALUE``; of several for one name the last counts.

    What the type of a setting says decides how its value reads: ``none`` where it may be None, ``inf`` where it
    may be a float, ``true`` or ``false``, a text as it is, several with commas between them.

    Raises:
        TypeError: the settings do not want such a value.
        ValueError: no such setting, or no such value.
    """
    return Settings(**dict(parse_assignment(assignment) for assignment in assignments))


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """The setting that ``NAME=VALUE`` names and its value, which it may still not want.

    Raises:
        ValueError: no such setting, or no such value.
    """
    name, _, text = assignment.partition("=")
    check_name(name)
    return name, parse_text(name, text)


def check_name(name: str) -> None:
    """Raise ValueError if no setting is called ``name``."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES) or f"; there are: {', '.join(NAMES)}"
        raise ValueError(f"no setting is called {name!r}{hint}")


def parse_text(name: str, text: str) -> object:
    """The value that ``text`` is for the setting ``name``.

    Raises:
        ValueError: none.
    """
    try:
        return _parse(_kinds_of(name), text)
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from exc


def parse_toml(name: str, value: object) -> object:
    """The value for the setting ``name`` that a TOML file gives as ``value``: of its own type, or the text ``none``.

    Raises:
        ValueError: it is of another type.
    """
    kinds = _kinds_of(name)
    if types.NoneType in kinds and value == "none":  # TOML has no null
        return None
    if isinstance(value, list) and tuple in kinds and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
        return float(value)
    if type(value) in kinds - {tuple}:  # and not isinstance: True is an int
        return value
    wanted = [words for kind, words in _TOML_WORDS if kind in kinds][:1] or ["a list of texts"]
    wanted += ['"none"'] if types.NoneType in kinds else []
    raise ValueError(f"{name}={value!r} must be {' or '.join(wanted)}")


def check_value(name: str, value: object) -> None:
    """Raise ValueError or TypeError if the setting ``name``, by itself, does not want ``value``."""
    field = attrs.fields_dict(Settings)[name]
    if field.validator is not None:
        field.validator(None, field, value)


def _kinds_of(name: str) -> set[type]:
    """The types a value may be of, without what is in them."""
    kind = _KINDS[name]
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return {getattr(each, "__origin__", each) for each in kinds}


def _parse(kinds: set[type], text: str) -> object:
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
    return tuple(text.split(",")) if text else ()
