"""What ``import trioroom`` brings: all public names, but the client only when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trioroom
from trioroom.client import Client, connect

WAYS = [
    "from trioroom import connect",
    "from trioroom import client; connect = client.connect",
    "from trioroom import *",
    "import trioroom; connect = trioroom.connect",
    "import trioroom; connect = trioroom.client.connect",
]


@pytest.mark.parametrize("way", WAYS)
def test_client_is_there_whichever_way_it_is_asked_for(way: str) -> None:
    program = f"{way}; print(connect.__module__)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "trioroom.client.opening\n"


def test_client_is_not_imported_before() -> None:
    program = "import sys, trioroom; print({'connect', 'client'} <= {*dir(trioroom)}, 'trioroom.client' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "True False\n"


def test_client_is_found_once_and_then_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(trioroom), "connect", raising=False)
    assert trioroom.connect is connect
    assert vars(trioroom)["connect"] is connect
    assert trioroom.client.Client is Client


def test_all_public_names_are_listed() -> None:
    assert {*trioroom.__all__} <= {*dir(trioroom)}


def test_other_names_are_not_there() -> None:
    assert not hasattr(trioroom, "dial")
    with pytest.raises(AttributeError, match="module 'trioroom' has no attribute 'dial'"):
        trioroom.dial  # type: ignore[attr-defined]  # noqa: B018
