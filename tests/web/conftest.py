from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.browser import missing, program

HERE = Path(__file__).parent
WEB = HERE.parent.parent / "trioroom" / "web"


@pytest.fixture
def node() -> str:
    """Node 20 or later."""
    path = program("TRIOROOM_NODE", "node", "nodejs")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        missing(f"node is {version.strip()}, and the tests need 20 or later")
    return path


def run(*command: str, cwd: Path = HERE, timeout: float = 120, env: Mapping[str, str] | None = None) -> str:
    """What the command says; a failure with all of that when it fails."""
    result = subprocess.run(
        command,
        cwd=cwd,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    assert result.returncode == 0, result.stdout
    return result.stdout
