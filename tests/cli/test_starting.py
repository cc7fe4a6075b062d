"""With which commands, and in which directory, processes of ours are started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trioroom.cli.starting import Commands


def commands(*arguments: str, broker: str | None = None) -> Commands:
    return Commands(arguments, "::1", "redis://:secret@h" if broker is None else "embedded", broker)


OVERRIDING = ["--worker", "--workers", "1", "--host", "::1"]


def test_overriding_options_come_last_yet_before_what_is_no_option() -> None:
    overriding = [*OVERRIDING, "--port", "80", "--backplane", "unix:///s"]
    linked = commands("demo", "--port", "0", broker="unix:///s")
    assert linked.worker(80)[3:] == ["demo", "--port", "0", *overriding]
    assert commands("serve", "--", "a:b", broker="unix:///s").worker(80)[3:] == ["serve", *overriding, "--", "a:b"]


def test_fork_server_is_told_no_port() -> None:
    assert commands("demo").fork_server()[3:] == ["demo", *OVERRIDING, "--fork-server"]


def test_backplane_of_others_is_told_where_passwords_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_BACKPLANE_FILE", "/run/secrets/backplane")  # which may have another one by now
    linked = commands("demo")
    assert linked.worker(80)[3:] == ["demo", *OVERRIDING, "--port", "80"]
    environment = linked.environment()
    assert environment["TRIOROOM_BACKPLANE"] == "redis://:secret@h"
    assert not environment["TRIOROOM_BACKPLANE_FILE"]
    assert environment["PATH"] == os.environ["PATH"]
    assert "secret" not in repr(linked)


def test_directory_is_the_link_by_which_it_was_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, other, current = tmp_path / "1", tmp_path / "2", tmp_path / "current"
    release.mkdir()
    other.mkdir()
    current.symlink_to(release)
    monkeypatch.chdir(current)
    assert os.getcwd() == str(release)
    monkeypatch.setenv("PWD", str(current))
    assert commands().directory == str(current)
    for stale in (other, tmp_path / "3", ""):
        monkeypatch.setenv("PWD", str(stale))
        assert commands().directory == str(release)
