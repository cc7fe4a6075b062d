"""The reference of metrics says what is told, and queries and rules in the how-to ask for nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trioroom._core.admission import Verdict
from trioroom._core.meters import GAP_REASONS, HOOKS, MESSAGES_PER_TIMING, Outcome
from trioroom._core.overflow import Overflow, SlowConsumer
from trioroom._net.families import FAMILIES, WORKER_UP, Family, Kind

DOCS = Path(__file__).parent.parent.parent / "docs"
REFERENCE = (DOCS / "reference" / "metrics.md").read_text("utf-8")
ALERTS = DOCS / "deploy" / "prometheus-alerts.yaml"
HOW_TO = DOCS / "howto" / "monitor-with-prometheus.md"
ASKED = re.compile(r"\b(?:trioroom|process)_[a-z_]+\b")


def row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind.value} |{f' {labels} ' if labels else ' '}| {family.meaning} |"


FAMILIES_IN_ORDER = (*FAMILIES, WORKER_UP)


def test_reference_has_a_row_for_each_family_and_no_other() -> None:
    rows = re.findall(r"^\| `(?:trioroom|process)_.*$", REFERENCE, re.M)
    assert rows == [row(family) for family in FAMILIES_IN_ORDER]


@pytest.mark.parametrize(
    "value",
    [
        *(outcome.value for outcome in Outcome),
        *(verdict.value for verdict in Verdict if verdict is not Verdict.ADMITTED),
        *(policy.value for policy in Overflow),
        *(cause.value for cause in SlowConsumer),
        *GAP_REASONS,
        *HOOKS,
    ],
)
def test_reference_has_each_value_of_a_label(value: str) -> None:
    assert f"`{value}`" in REFERENCE


def test_reference_says_how_many_calls_are_timed() -> None:
    assert MESSAGES_PER_TIMING == 16
    assert "one call in sixteen" in REFERENCE


def samples() -> set[str]:
    """What Prometheus stores."""
    suffixes = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
    return {family.name + suffix for family in FAMILIES_IN_ORDER for suffix in suffixes.get(family.kind, ("",))}


@pytest.mark.parametrize("path", [HOW_TO, ALERTS], ids=lambda path: path.name)
def test_queries_ask_for_what_there_is(path: Path) -> None:
    text = path.read_text("utf-8")
    asked = {name for name in ASKED.findall(text) if not name.endswith("_")}
    assert asked
    assert asked <= samples() | {family.name for family in FAMILIES_IN_ORDER}


@pytest.mark.parametrize("path", [HOW_TO, DOCS / "deploy" / "prometheus.yaml"], ids=lambda path: path.name)
def test_job_that_collects_is_the_one_that_queries_and_rules_name(path: Path) -> None:
    asked = re.findall(r'job="(\w+)"', HOW_TO.read_text("utf-8") + ALERTS.read_text("utf-8"))
    assert {*re.findall(r"job_name: (\w+)", path.read_text("utf-8"))} == {*asked} != set()


def test_each_alert_says_what_to_do() -> None:
    rules: dict[str, Any] = yaml.safe_load(ALERTS.read_text("utf-8"))
    (group,) = rules["groups"]
    assert len(group["rules"]) >= 8
    for rule in group["rules"]:
        assert rule.keys() >= {"alert", "expr", "annotations"}, rule
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
