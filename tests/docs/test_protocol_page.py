"""The tables of the protocol's reference are those of the code: requests, pushes, their fields, codes of errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import get_args

import msgspec
import pytest

from tests.docs.named_tests import ROOT
from trioroom._wire import envelopes
from trioroom._wire.envelopes import FromServer

PAGE = (ROOT / "docs" / "reference" / "protocol.md").read_text("utf-8")
ANSWERS = {"ok", "error", "hello"}  # the page tells of them in words
SERVED = {each.__struct_config__.tag: each for each in get_args(FromServer)}
ASKED = {
    each.__struct_config__.tag: each
    for each in vars(envelopes).values()
    if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__struct_config__.tag not in (None, *SERVED)
}


def rows(heading: str) -> dict[str, str]:
    """Of the table below it: what stands in the first column, in backticks, and the rest."""
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    table: dict[str, str] = {}
    for name, rest in re.findall(r"^\| `(\w+)` \|(.*)$", section.partition("\n|---|")[2], re.M):
        table[name] = table.get(name, "") + rest
    return table


@pytest.mark.parametrize(("heading", "structs"), [("Requests", ASKED), ("Pushes", {**SERVED})])
def test_table_has_each_type_with_its_fields(heading: str, structs: dict[str, type[msgspec.Struct]]) -> None:
    table = rows(heading)
    assert {*table} == {*structs} - ANSWERS
    for name, told in table.items():
        for field in msgspec.structs.fields(structs[name]):
            assert f"`{field.encode_name}`" in told, f"{name}.{field.encode_name}"


def codes_in(source: str) -> Iterator[str]:
    """The second argument of each `Error` that is made, and of each call of `_refuse`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(code := node.args[1], ast.Constant):
            called = ast.unparse(node.func)
            if called == "Error" or called.endswith("_refuse"):
                yield str(code.value)


def test_errors_have_a_row_each() -> None:
    sources = [
        path.read_text("utf-8")
        for folder in ("_net", "_wire")
        for path in (ROOT / "trioroom" / folder).glob("*.py")
        if "ApiError" not in path.read_text("utf-8")
    ]
    used = {code for source in sources for code in codes_in(source)}
    assert len(used) > 10
    assert used <= {*rows("Errors")}
    text = "\n".join(sources)
    assert {code for code in rows("Errors") if f'"{code}"' not in text} == set()
