"""The plugin for pytest that comes with trioroom: fixtures for tests of rooms, and asserts that explain themselves.

It is no module of the package, since to import one of these is to import ``trioroom``. pytest loads plugins wherever
they are installed, in projects too that test something else, and before coverage is measured: so this imports nothing
until a fixture is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trioroom import App, Server, Settings
    from trioroom.backplane.base import Backplane

_WITH_ASSERTS = ("conformance", "history_conformance", "presence_conformance", "histories", "v1_peer")

for _name in _WITH_ASSERTS:
    if f"trioroom.testing.{_name}" not in sys.modules:  # too late then, of which pytest would warn
        pytest.register_assert_rewrite(f"trioroom.testing.{_name}")


@pytest.fixture
def trioroom_app() -> App:
    """The app that `trioroom_server` runs: define a fixture of this name that returns yours."""
    raise pytest.UsageError("trioroom_server does not know your app; define a fixture trioroom_app that returns it")


@pytest.fixture
def trioroom_settings() -> Settings | None:
    """The settings of `trioroom_server`; None is what `trioroom.testing.open_test_server` has for tests."""
    return None


@pytest.fixture
def trioroom_backplane() -> Backplane | None:
    """The backplane of `trioroom_server`, such as a `trioroom.testing.FaultyBackplane`; None links it to nothing."""
    return None


@pytest.fixture
def _on_trio(request: pytest.FixtureRequest) -> None:
    """That somebody runs the test, and its asynchronous fixtures, on Trio: pytest's own errors do not say how."""
    if "anyio_backend" in request.fixturenames:
        runs = request.getfixturevalue("anyio_backend_name") == "trio"
    else:  # pytest-trio gives the mark itself where trio_mode is set
        runs = request.config.pluginmanager.hasplugin("trio") and request.node.get_closest_marker("trio") is not None
    if not runs:
        raise pytest.UsageError(
            "trioroom_server needs an async test that runs on Trio: pip install pytest-trio and set trio_mode = true; "
            'with anyio, mark it and define a fixture anyio_backend that returns "trio"'
        )


@pytest.fixture
async def trioroom_server(
    _on_trio: None, trioroom_app: App, trioroom_settings: Settings | None, trioroom_backplane: Backplane | None
) -> AsyncIterator[Server]:
    """A server that runs `trioroom_app` during the test, without a port; see `trioroom.testing.open_test_server`."""
    from trioroom.testing import open_test_server

    async with open_test_server(trioroom_app, trioroom_settings, backplane=trioroom_backplane) as server:
        yield server
