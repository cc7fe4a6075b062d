"""Exits are told as people know them."""

from __future__ import annotations

import pytest

from trioroom._core.exitcodes import describe_exit


@pytest.mark.parametrize(
    ("code", "said"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-15, "SIGTERM"), (-40, "signal 40")]
)
def test_exits_are_named(code: int, said: str) -> None:
    assert describe_exit(code) == said
