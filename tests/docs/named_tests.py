"""Tests that a page names as `path::name`."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NAMED = re.compile(r"`((?:tests|trioroom/testing)/[\w/]+\.py)::(\w+)`")


def check_named(text: str) -> None:
    """``text`` names at least one test, each of them as ``path::name``, and all of them exist."""
    named = NAMED.findall(text)
    assert len(named) == text.count("::") > 0, f"write each test as `path::name`: {text}"
    for path, name in named:
        assert name.startswith("test_")
        assert name in functions_of(path), f"{path} has no {name}; is it called differently now?"


@cache
def functions_of(path: str) -> set[str]:
    """Of a file below the root of the repository."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
