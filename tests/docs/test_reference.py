"""The reference page names what the facade exports, no more and no less."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import trioroom
import trioroom.auth
import trioroom.client
import trioroom.debug
from trioroom.backplane.kafka import KafkaSettings
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.redis import RedisSettings

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: trioroom\.([\w.]+?)(?:\(\))?$", re.M)


def documented() -> list[str]:
    return DIRECTIVE.findall((REFERENCE / "api.md").read_text("utf-8"))


def test_reference_documents_every_public_name_once_and_no_other() -> None:
    shared = set(trioroom.__all__) - {"Message"}  # rooms have another one
    of_client = [f"client.{name}" for name in trioroom.client.__all__ if name not in shared]
    of_auth = [f"auth.{name}" for name in trioroom.auth.__all__]
    of_debug = [f"debug.{name}" for name in trioroom.debug.__all__]
    assert sorted(documented()) == sorted([*trioroom.__all__, *of_auth, *of_client, *of_debug])


def test_public_names_are_sorted() -> None:
    assert trioroom.__all__ == sorted(trioroom.__all__)
    assert trioroom.auth.__all__ == sorted(trioroom.auth.__all__)
    assert trioroom.client.__all__ == sorted(trioroom.client.__all__)


# -- what the names say of themselves --------------------------------------------------------------

MODULES: tuple[ModuleType, ...] = (trioroom, trioroom.auth, trioroom.client)
NAMED = [getattr(module, name) for module in MODULES for name in module.__all__]
CLASSES: list[type] = [*dict.fromkeys(filter(inspect.isclass, NAMED)), RedisSettings, NatsSettings, KafkaSettings]


def explained(cls: type) -> Iterator[tuple[str, str]]:
    """Public fields, properties and methods of its own, each with its docstring, which may be empty."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            name, text = statement.name, ast.get_docstring(statement) or ""
            if any(ast.unparse(decorator).endswith(".setter") for decorator in statement.decorator_list):
                continue
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, text = statement.target.id, ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = inspect.cleandoc(str(following.value.value))
        else:
            continue
        if not name.startswith("_"):
            yield name, text


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_public_names_explain_themselves(cls: type) -> None:
    assert cls.__doc__
    inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
    for name, text in explained(cls):
        assert text or name in inherited or f"``{name}``" in cls.__doc__ or name in cls.__doc__.split(), name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_text_of_a_field_is_taken_for_its_type(cls: type) -> None:
    """Sphinx takes what is before a colon in the first line for that, and puts it below the text."""
    for name, text in explained(cls):
        first = re.sub(r"``.*?``|`.*?`", "", text.partition("\n")[0])
        is_field = name in getattr(cls, "__annotations__", {}) or isinstance(vars(cls).get(name), property)
        assert not is_field or ": " not in first, f"{name}: {first}"


def test_functions_explain_themselves() -> None:
    assert all(inspect.getdoc(fn) for fn in NAMED if inspect.isfunction(fn))


def test_close_code_table_lists_the_catalogue() -> None:
    rows = re.findall(r"^\| (\d{4}) \| `(\w+)` \|", (REFERENCE / "close-codes.md").read_text("utf-8"), re.M)
    assert rows == [(str(code.value), code.name) for code in trioroom.CloseCode]
