"""The page that shows the examples: what it has readers type is there."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.docs.examples.running import EXAMPLES, ROOT
from trioroom import App

PAGE = (ROOT / "docs" / "howto" / "examples.md").read_text("utf-8")
SERVED = re.findall(r"^trioroom serve (\S+)$", PAGE, re.M)
RUN = re.findall(r"^python (\S+)$", PAGE, re.M)


def test_each_example_has_a_command() -> None:
    assert len(SERVED) + len(RUN) == len(re.findall(r"^## ", PAGE, re.M)) == 6


@pytest.mark.parametrize("target", SERVED)
def test_command_serves_an_application(target: str) -> None:
    module, _, name = target.partition(":")
    assert isinstance(getattr(import_module(module), name or "app"), App)


@pytest.mark.parametrize("program", RUN)
def test_program_can_be_run(program: str) -> None:
    assert re.search(
        r'^if __name__ == "__main__":[^#]+trio\.run\(main\)$', (EXAMPLES / program).read_text("utf-8"), re.M
    )
