"""The model of `docs/examples/capacity.py` says what was measured, within the factors given here."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.docs import measured
from tests.docs.measured import LAST, LAST_BESIDE_OTHERS, PASSES, RATES, SHARES, Last, Pass, Rate, Share
from trioroom._wire.frames import Opcode, encode_frame
from trioroom._wire.publication import encode_publication
from trioroom.settings import Settings

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PASS_FACTOR = 1.4
RATE_FACTOR = 1.4
P50_FACTOR = 1.6
P99_FACTOR = 2.5
BESIDE_OTHERS_FACTOR = 2.2
SHARE_FACTOR = 1.4
HEARING_FACTOR = 1.8  # the model has no bytes there
SINGLE_FACTOR = 1.2
ECHO_FACTOR = 1.6  # the slowest is from a busier machine


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])


def within(modelled: float, points: float, factor: float) -> bool:
    return points / factor <= modelled <= points * factor


@pytest.mark.parametrize("point", PASSES, ids=str)
def test_pass_costs_what_was_measured(point: Pass) -> None:
    from capacity_model import Costs, pass_cpu

    each = pass_cpu(Costs(), point.members, point.messages, point.payload) / point.members
    assert within(each, point.seconds, PASS_FACTOR), each


@pytest.mark.parametrize("point", RATES, ids=str)
def test_one_message_in_flight_is_delivered_as_fast_as_measured(point: Rate) -> None:
    from capacity_model import Costs, pass_cpu

    per_second = point.members / pass_cpu(Costs(), point.members, 1, 128)
    assert within(per_second, point.per_second, RATE_FACTOR), per_second


@pytest.mark.parametrize("point", LAST, ids=str)
def test_last_member_waits_as_long_as_measured(point: Last) -> None:
    from capacity_model import Plan
    from capacity_queue import simulate

    plan = Plan(members=point.members, rate=point.rate, payload=point.payload, nodes=1, cores=1)
    delays = simulate(plan)
    assert within(delays.p50, point.p50, P50_FACTOR), delays
    assert within(delays.p99, point.p99, P99_FACTOR), delays


@pytest.mark.parametrize("point", LAST_BESIDE_OTHERS, ids=str)
def test_last_member_waits_no_longer_than_measured_beside_others(point: Last) -> None:
    from capacity_model import Plan
    from capacity_queue import simulate

    plan = Plan(members=point.members, rate=point.rate, payload=point.payload, nodes=1, cores=1)
    delays = simulate(plan)
    assert within(delays.p50, point.p50, BESIDE_OTHERS_FACTOR), delays
    assert delays.p50 < 1.3 * point.p50
    assert delays.p99 < point.p99


@pytest.mark.parametrize("point", SHARES, ids=str)
def test_publication_through_the_broker_costs_what_was_measured(point: Share) -> None:
    from capacity_model import Costs, broker_cpu_of

    costs = Costs()
    broker = broker_cpu_of(costs, point.nodes, point.payload)
    assert within(broker, point.broker, SHARE_FACTOR), broker
    assert within(costs.node_publish, point.publishing, HEARING_FACTOR)
    assert within(costs.node_hear, point.hearing, HEARING_FACTOR)


@pytest.mark.parametrize(
    ("name", "points", "factor"),
    [
        ("member_bytes", measured.MEMBER_BYTES, SINGLE_FACTOR),
        ("kernel_bytes", measured.KERNEL_BYTES, SINGLE_FACTOR),
        ("handshake", measured.HANDSHAKES, SINGLE_FACTOR),
        ("heartbeat", measured.HEARTBEATS, SINGLE_FACTOR),
        ("inbound", measured.ECHOES, ECHO_FACTOR),
    ],
)
def test_constants_are_near_each_measurement(name: str, points: tuple[float, ...], factor: float) -> None:
    from capacity_model import Costs

    constant = getattr(Costs(), name)
    assert [point for point in points if not within(constant, point, factor)] == []


@pytest.mark.parametrize("payload", [1, 125, 126, 65_535, 65_536])
def test_frames_are_as_long_as_ours(payload: int) -> None:
    from capacity_model import frame_bytes

    assert frame_bytes(payload) == len(encode_frame(Opcode.BINARY, bytes(payload)))


def test_publication_is_as_long_at_the_broker_as_the_model_says() -> None:
    from capacity_model import PUBLICATION_OVERHEAD

    payload = encode_publication("x" * 128, "0123456789abcdef", "0123456789abcdef")
    room = b"trioroom:room:chat/lobby"
    pushed = b">3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(room), room, len(payload), payload)
    assert abs(len(pushed) - 128 - PUBLICATION_OVERHEAD) < 10


def test_defaults_of_the_settings_are_those_of_the_server() -> None:
    from capacity import MOST_MEMBERS
    from capacity_model import Plan, stalled_memory
    from capacity_queue import MAX_BATCH, MAX_BATCH_BYTES

    from trioroom._net import fanout

    settings, defaults = Settings(), inspect.signature(stalled_memory).parameters
    assert defaults["outbox"].default == settings.max_outbox_bytes
    assert defaults["queued"].default == settings.max_queued_bytes
    assert Plan().ping_interval == settings.ping_interval
    assert settings.max_members_per_room == MOST_MEMBERS
    assert (MAX_BATCH, MAX_BATCH_BYTES) == (fanout._MAX_BATCH, fanout._MAX_BATCH_BYTES)


def test_delay_of_a_full_core_is_no_more_than_two_passes() -> None:
    from capacity_model import Plan, pass_cpu
    from capacity_queue import simulate

    plan = Plan(members=10_000, rate=100, nodes=1, cores=1)
    delays = simulate(plan)
    assert delays.p99 < 2.1 * pass_cpu(plan.costs, 10_000, round(delays.batch), plan.payload)
    assert delays.busy > 0.99
    assert not delays.behind


def test_small_rooms_that_say_too_much_fall_behind() -> None:
    from capacity_model import Plan
    from capacity_queue import simulate

    assert simulate(Plan(members=200_000, rooms=40_000, nodes=1, cores=2)).behind
    assert not simulate(Plan(members=50_000, rooms=10_000, nodes=1, cores=2)).behind


def test_core_that_is_full_without_fan_out_has_no_delay_to_tell() -> None:
    assert "more comes than can go" in run("--members=1000000", "--rooms=200000", "--nodes=1", "--cores=1")


def test_nodes_needed_are_the_fewest_that_pass() -> None:
    from capacity import nodes_needed
    from capacity_model import Plan

    for fewest in (1, 2, 3, 7, 64, 1_000):
        assert nodes_needed(Plan(), lambda plan, fewest=fewest: plan.nodes >= fewest) == fewest  # type: ignore[misc]
    assert nodes_needed(Plan(), lambda plan: False) is None


def run(*arguments: str) -> str:
    from capacity import main

    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_explains_itself() -> None:
    assert "how many nodes" in run("--help")


def test_more_rooms_than_members_are_refused() -> None:
    from capacity import main

    result = CliRunner().invoke(main, ["--members", "5", "--rooms", "6"])
    assert result.exit_code == 2
    assert "--rooms 6 are more than --members 5" in result.output


def plans_of_the_page() -> Iterator[tuple[str, str]]:
    """Each command of the page, and what it says that this prints."""
    page = (ROOT / "docs" / "explanation" / "capacity.md").read_text("utf-8")
    yield from re.findall(r"```console\n\$ python capacity\.py(.*?)\n(.*?)```", page, re.DOTALL)


def test_page_shows_what_the_command_prints() -> None:
    plans = list(plans_of_the_page())
    assert plans
    for arguments, shown in plans:
        printed = re.sub(r"\s+", " ", run(*arguments.split()))
        for line in filter(None, map(str.strip, shown.splitlines())):
            assert re.sub(r"\s+", " ", line) in printed
