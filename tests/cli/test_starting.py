"""With which commands, and in which directory, processes of ours are started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trioroom.cli.starting import Commands


def test_overriding_options_come_last_yet_before_what_is_no_option() -> None:
    overriding = ["--worker", "--workers", "1", "--port", "80", "--backplane", "unix:///s"]
    assert Commands(["demo", "--port", "0"], "unix:///s").worker(80)[3:] == ["demo", "--port", "0", *overriding]
    assert Commands(["serve", "--", "a:b"], "unix:///s").worker(80)[3:] == ["serve", *overriding, "--", "a:b"]


def test_fork_server_is_told_no_port() -> None:
    assert Commands(["demo"], None).fork_server()[3:] == ["demo", "--worker", "--workers", "1", "--fork-server"]


def test_backplane_that_workers_get_from_where_we_got_it_is_not_among_them() -> None:
    assert Commands(["demo"], None).worker(80)[3:] == ["demo", "--worker", "--workers", "1", "--port", "80"]


def test_directory_is_the_link_by_which_it_was_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, other, current = tmp_path / "1", tmp_path / "2", tmp_path / "current"
    release.mkdir()
    other.mkdir()
    current.symlink_to(release)
    monkeypatch.chdir(current)
    assert os.getcwd() == str(release)
    monkeypatch.setenv("PWD", str(current))
    assert Commands([], None).directory == str(current)
    for stale in (other, tmp_path / "3", ""):
        monkeypatch.setenv("PWD", str(stale))
        assert Commands([], None).directory == str(release)
