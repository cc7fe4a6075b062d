"""The page on Kafka: topics that are made by hand are as those that trioroom makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trioroom.backplane.kafka.plans import TopicPlan, presence_plan, rooms_plan
from trioroom.backplane.kafka.settings import KafkaSettings

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "scale-with-kafka.md"
SETTINGS = KafkaSettings()


@pytest.mark.parametrize("plan", [rooms_plan(SETTINGS), presence_plan(SETTINGS)], ids=lambda plan: plan.name)
def test_topics_of_the_page_are_those_of_the_defaults(plan: TopicPlan) -> None:
    commands = PAGE.read_text("utf-8").replace("\\\n", " ")
    (command,) = re.findall(rf"^kafka-topics\.sh .* --topic {re.escape(plan.name)} .*$", commands, re.MULTILINE)
    options = dict(re.findall(r"--(\w[\w-]*) (\S+)", command))
    assert int(options["partitions"]) == plan.partitions
    config = dict(text.split("=") for text in re.findall(r"--config (\S+)", command))
    assert config.items() >= plan.config.items()
    assert config["unclean.leader.election.enable"] == "false"
    assert int(config["min.insync.replicas"]) == int(options["replication-factor"]) - 1
