"""Whatever a page calls like a setting is one, or belongs to somebody else who is named here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest

import trioroom
from tests.docs.named_tests import ROOT
from trioroom.auth import JwksUrl
from trioroom.backplane.kafka import KafkaSettings
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.redis import RedisSettings

RECORDS = (trioroom.Settings, trioroom.Presence, RedisSettings, NatsSettings, KafkaSettings)
OURS = {field.name for record in RECORDS for field in attrs.fields(record)} | {*vars(trioroom.Room)}
OURS |= {name for fn in (trioroom.connect, MemoryBackplane, JwksUrl) for name in inspect.signature(fn).parameters}
OF_OTHERS = {
    "max_payload": "NATS",
    "sync_interval": "NATS",
    "worker_shutdown_timeout": "nginx",
    "tcp_fin_timeout": "Linux",
}
LOOKS_LIKE_ONE = re.compile(r"`(max_\w+|\w+_(?:timeout|bytes|interval|rate|ttl|burst|delay|size|lease))(?:=[^`]*)?`")
FOLDERS = ("explanation", "howto", "reference", "tutorial")  # decisions and changes tell of what was
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / "docs" / folder).glob("*.md"))]


def named(page: Path) -> set[str]:
    names = {*LOOKS_LIKE_ONE.findall(page.read_text("utf-8"))}
    return {name for name in names if not name.startswith(("trioroom_", "process_"))}  # metrics, which have a test


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_settings_that_are_named_exist(page: Path) -> None:
    assert named(page) - OURS - {*OF_OTHERS} == set()


def test_there_are_settings_to_speak_of() -> None:
    names = {name for page in PAGES for name in named(page)}
    assert len(names) > 40
    assert names >= {*OF_OTHERS}
