"""That coverage is of what is to be measured, also beside other workers."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis.strategies import booleans


def are_traced() -> tuple[bool, bool]:
    """This thread, and new ones."""
    return sys.gettrace() is not None, threading.gettrace() is not None


def test_tests_are_traced_where_coverage_is_measured(pytestconfig: pytest.Config) -> None:
    measured = bool(pytestconfig.getoption("--cov", default=None))
    assert are_traced() == (measured, measured)


@pytest.mark.untraced
def test_what_is_marked_is_not() -> None:
    assert are_traced() == (False, False)


@given(booleans())
def test_properties_are_not(whatever: bool) -> None:
    assert are_traced() == (False, False)
