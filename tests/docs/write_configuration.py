"""Writes docs/examples/trioroom.toml from options and settings: ``python -m tests.docs.write_configuration``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs
import click

from trioroom.cli.check import format_toml
from trioroom.cli.configuration import configurable
from trioroom.cli.serve import serve
from trioroom.settings import Settings

PATH = Path(__file__).parent.parent.parent / "docs" / "examples" / "trioroom.toml"

_IN_TOML = {"None": '"none"', "math.inf": "inf", '("*",)': '["*"]'}
"""What the docstrings say in Python."""


def written() -> str:
    """The file as it should be."""
    lines = ["# Every option and every setting of `trioroom serve --config trioroom.toml`, with its default.", ""]
    for key, param in configurable(serve):
        lines += _option(key, param)
    lines += ["", "[settings]"]
    for field in attrs.fields(Settings):
        lines += [*_comment(explanations()[field.name]), f"{field.name} = {format_toml(field.default)}"]
    return "\n".join(lines) + "\n"


def explanations() -> dict[str, str]:
    """The first paragraph of each setting's docstring, which Python does not keep, without its marks."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            paragraph = re.sub(r"\s+", " ", inspect.cleandoc(str(text.value.value)).partition("\n\n")[0])
            for python, toml in _IN_TOML.items():
                paragraph = paragraph.replace(f"``{python}``", toml)
            found[field.target.id] = paragraph.replace("``", "`")
    return found


def _option(key: str, param: click.Parameter) -> Iterator[str]:
    if isinstance(param, click.Option):
        yield from _comment(param.help or "")
    if key == "app":
        yield '# app = "chat:app"'
    elif isinstance(param, click.Option) and param.is_flag:
        yield f"{key} = false"
    elif isinstance(param.default, str | int | float):
        yield f"{key} = {format_toml(param.default)}"
    else:
        yield f'# {key} = "..."'


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, 116):
        yield f"# {line}"


if __name__ == "__main__":
    PATH.write_text(written(), "utf-8")
