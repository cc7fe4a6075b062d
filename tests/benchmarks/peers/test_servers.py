"""Each server of the comparison that can run here serves a room and an echo; under `nox -s bench` all can.

Which those are is found out before there are tests of them: who is not installed has none, rather than one that skips.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.benchmarks.peers.contenders import CONTENDERS, Contender, Missing, distributions, prepare
from tests.benchmarks.peers.loads import LOADS, Load, measure
from tests.benchmarks.peers.serving import Failed, serving


def can_run(contender: Contender) -> bool:
    """Without fetching anything: packages of npm, which `prepare` would install, are for the comparison itself."""
    if contender.server.endswith(".c"):
        return shutil.which("gcc") is not None
    if contender.server.endswith(".js"):
        return False
    try:
        distributions(contender.packages)
    except Missing:
        return False
    return True


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load("fanout", "fanout", 10, 2), id="fanout"),
        pytest.param(Load("echo", "echo", 10), id="echo", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("name", [name for name, contender in CONTENDERS.items() if can_run(contender)])
def test_server_bears_the_load(name: str, load: Load, tmp_path: Path) -> None:
    run = measure(prepare(CONTENDERS[name], tmp_path), load, 0.2)
    assert set(run.figures) == {figure.name for figure in load.figures}
    assert all(value > 0 for value in run.figures.values())
    assert 0 <= run.others < 1.05  # times of processes and of the clock are not taken at one moment


def test_what_is_not_installed_is_missing_with_the_reason(tmp_path: Path) -> None:
    contender = Contender(name="nobody", server="nobody.py", packages=("nobody-has-this",))
    with pytest.raises(Missing, match="nobody-has-this is not installed"):
        prepare(contender, tmp_path)


def test_programs_that_are_not_there_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ws", "socket.io", "send loop"):
        with pytest.raises(Missing, match="is not on PATH"):
            prepare(CONTENDERS[name], tmp_path)


def test_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    ready = prepare(CONTENDERS["trio-websocket"], tmp_path)
    broken = type(ready)(ready.contender, (*ready.command[:2], "no-port"))
    with pytest.raises(Failed, match=r"(?s)trio-websocket did not start.*invalid literal"), serving(broken):
        pass


def test_loads_have_figures_and_names_of_their_own() -> None:
    assert all(name == load.name and load.figures for name, load in LOADS.items())
    assert len({load.title for load in LOADS.values()}) == len(LOADS)
