"""The threat model names tests that exist, at least one for each fault it says is covered."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def covered() -> list[str]:
    """The rows of the table, without its head."""
    page = (ROOT / "docs" / "explanation" / "threat-model.md").read_text("utf-8")
    section = page.partition("## Covered\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_faults_to_speak_of() -> None:
    assert len(covered()) > 20


@pytest.mark.parametrize("row", covered(), ids=lambda row: row.split("|")[1].strip()[:50])
def test_fault_has_a_test(row: str) -> None:
    _, fault, _, tests, _ = row.split("|")
    named = NAMED.findall(tests)
    assert len(named) == tests.count("::") > 0, f"{fault.strip()}: write each test as `path::name`"
    for path, name in named:
        assert name.startswith("test_")
        assert name in functions_of(path), f"{path} has no {name}; is it called differently now?"
