"""What an application does when it is imported, and whether workers may be forks then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import DEADLINE

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="workers are forks where there are pidfds")


def reason_after(source: str) -> str:
    """What an interpreter that has run ``source`` has against forks."""
    script = f"{source}\nfrom trioroom.cli.forksafety import reason_against_forks\nprint(reason_against_forks())"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.strip()


def test_trioroom_itself_may_be_forked() -> None:
    assert reason_after("import trioroom.cli, trioroom.demo.app, trioroom.backplane.redis") == "None"


def test_threads_may_not() -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    assert reason_after(source) == "importing the application has started threads"


def test_sockets_may_not() -> None:
    assert reason_after("import socket\nsock = socket.socket()") == "importing the application has opened sockets"


def test_sockets_that_are_closed_again_and_files_may() -> None:
    assert reason_after("import os, socket\nsocket.socket().close()\nfile = open(os.devnull)") == "None"


def test_standard_input_may_be_a_socket() -> None:
    source = (
        "import os, socket\nleft, right = socket.socketpair()\nos.dup2(left.fileno(), 0)\nleft.close(); right.close()"
    )
    assert reason_after(source) == "None"


@pytest.mark.parametrize(
    "lack", ["del os.pidfd_open", "def fail(pid): raise OSError(38, 'not implemented')\nos.pidfd_open = fail"]
)
def test_system_without_pidfds_has_none(lack: str) -> None:
    assert reason_after(f"import os\n{lack}") == "this system has no pidfds"


def test_what_cannot_be_seen_is_not_risked() -> None:
    reason = reason_after("import os\nos.path.isdir = lambda path: False")
    assert reason == "without /proc nobody knows what threads and sockets importing the application has left"
