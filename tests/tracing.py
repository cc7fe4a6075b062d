"""What is traced for coverage: what is to be measured, and nothing else (docs/decisions/0025).

A tracer takes about as much time again as what it traces, that of tests, of pytest and of libraries included. So it is
off but while modules of ours are imported and while a test runs that is to be measured.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import is_hypothesis_test

if TYPE_CHECKING:
    from _typeshed import TraceFunction

_HERE = Path(__file__).parent

UNTRACED = (
    *("autobahn/", "benchmarks/", "dashboard/", "demo/test_page", "demo/test_two_servers", "docs/", "package/"),
    *("bench/test_many", "bench/test_result", "cli/test_d", "cli/test_rolling", "web/"),  # whole programs, up to here
    *(
        f"backplane/{broker}/test_{suite}"
        for broker in ("kafka", "nats", "redis")
        for suite in ("conformance", "fa", "history_c", "presence_conformance", "presence_n", "recovery", "servers")
    ),
    *("backplane/redis/test_cluster_moves", "backplane/redis/test_order"),
    *("backplane/test_faults", "backplane/test_flood", "backplane/test_presence_nodes"),
    *("client/test_restart", "test_cancellation", "test_layers", "test_style"),
    *("_net/test_fanout_members", "_net/test_overflow_memory", "_net/test_overflow_sockets", "_net/test_places"),
    *("_net/test_recovery_courses", "_net/test_request_smuggling"),
    *("testing/test_faults_at_random", "testing/test_virtual_time"),
)
"""How the paths of tests begin that run at length what others run too."""


def is_traced(item: pytest.Item) -> bool:
    """Properties are not: what they come to is chance, and what they find is to have an example beside them."""
    return not (
        str(item.path.relative_to(_HERE)).startswith(UNTRACED)
        or any(marker in item.keywords for marker in ("untraced", "slow"))
        or is_hypothesis_test(getattr(item, "obj", None))
    )


class Tracing:
    """A plugin that takes the tracer away for most of the time, where there is one.

    The marker ``no_cover`` of pytest-cov would not do: beside other workers there are two tracers, one behind the
    other, and where that marker stops the first the second goes on.
    """

    def __init__(self, package: ModuleType) -> None:
        self._package = package
        """Whose modules are to be measured."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        if sys.gettrace():
            import_all(self._package)
        with traced_by(None, None):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        self._tracers = sys.gettrace(), threading.gettrace()
        with traced_by(None, None):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        with traced_by(*(self._tracers if is_traced(item) else (None, None))):
            return (yield)


@contextmanager
def traced_by(here: TraceFunction | None, in_threads: TraceFunction | None) -> Iterator[None]:
    """Have this thread and those that start meanwhile traced by these."""
    before = sys.gettrace(), threading.gettrace()
    _set(here, in_threads)
    try:
        yield
    finally:
        _set(*before)


def _set(here: TraceFunction | None, in_threads: TraceFunction | None) -> None:
    sys.settrace(here)
    threading.settrace(in_threads)


def import_all(package: ModuleType) -> None:
    """Before the tests, which are imported without a tracer."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
