from __future__ import annotations

import sys

import pytest

from tests.docs.examples.running import EXAMPLES


@pytest.fixture(autouse=True)
def examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for who runs a command in their folder."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
