"""A part of the Autobahn suite that runs in seconds; ``run.py`` runs the whole."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.autobahn,
    pytest.mark.untraced,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # kosoku's own test data
]


def load_runner() -> ModuleType:
    """``run.py`` beside us: tests are no package, so it cannot be imported by name."""
    spec = importlib.util.spec_from_file_location("autobahn_run", Path(__file__).with_name("run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(["1.*"], id="framing"),
        pytest.param(["2.*"], id="pings"),
        pytest.param(["3.*"], id="reserved_bits"),
        pytest.param(["4.*"], id="opcodes"),
        pytest.param(["5.*"], id="fragmentation"),
        pytest.param(["6.*"], id="utf8"),
        pytest.param(["7.*"], id="closing"),
        pytest.param(["9.1.1", "9.2.1", "9.3.6", "9.4.6", "9.5.4", "9.6.4", "9.7.1"], id="limits"),
        pytest.param(["10.*"], id="autofragmentation"),
        pytest.param(["12.1.1", "12.1.6", "12.2.1", "12.3.1", "12.5.1"], id="compression"),
        pytest.param(["13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.7.1"], id="compression_parameters"),
    ],
)
def test_no_case_of_the_section_fails(cases: list[str]) -> None:
    pytest.importorskip("kosoku")
    runner = load_runner()
    results = runner.run_cases(cases, parallelism=4)
    assert len(results) >= len(cases)
    assert not [result.case_id for result in results if runner.is_failed(result)], runner.summarize(results)
