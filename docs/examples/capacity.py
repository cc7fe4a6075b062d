"""What a plan for a trioroom service needs: memory, CPU by cause, delays, traffic, and how many nodes.

    python capacity.py --members 10000000 --rooms 10 --rate 2 --nodes 50 --cores 4

The costs behind it were measured on one kind of machine; `capacity_model.Costs` has them, to be replaced by yours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import capacity_model as model
import click
from capacity_model import Plan
from capacity_queue import simulate

MOST_NODES = 10_000  # beyond which more of them are no answer
USABLE = 0.8  # of a machine's memory
MOST_MEMBERS = 100_000  # Settings.max_members_per_room, of one worker
BROKER_BUSY = 0.5  # of its core, from which a Redis wants another one beside it


@attrs.frozen(kw_only=True)
class Limits:
    """What a node has, and what is good enough."""

    memory: float
    """Bytes of a node."""
    connections: int
    """Of a worker: its open files, less 2,048."""
    bandwidth: float
    """Bytes a second of a node."""
    last_member: float
    """Seconds to the last member, for all but one message in a hundred."""
    reconnect: float
    """Seconds until all are back after a restart of everything."""


def checks(limits: Limits) -> dict[str, Callable[[Plan], bool]]:
    """What a plan has to pass, each by the name of what breaks otherwise."""

    def is_in_time(plan: Plan) -> bool:
        delays = simulate(plan)
        return not delays.behind and delays.p99 <= limits.last_member

    return {
        "memory": lambda plan: model.node_memory(plan) <= USABLE * limits.memory,
        "open files": lambda plan: plan.members_per_worker <= limits.connections,
        "members of a room on a worker": lambda plan: plan.members_per_pass <= MOST_MEMBERS,
        "network": lambda plan: model.egress(plan, simulate(plan).batch).bytes <= limits.bandwidth,
        "time to the last member": is_in_time,
        "return of all": lambda plan: model.reconnect_seconds(plan, model.other_cpu(plan)) <= limits.reconnect,
    }


def nodes_needed(plan: Plan, passes: Callable[[Plan], bool]) -> int | None:
    """The fewest nodes with which ``plan`` passes; None if `MOST_NODES` are too few."""
    low, high = 0, 1
    while not passes(attrs.evolve(plan, nodes=high)):
        low, high = high, 2 * high
        if high > MOST_NODES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(attrs.evolve(plan, nodes=middle)) else (middle, high)
    return high


def report(plan: Plan, limits: Limits) -> Iterator[tuple[str, str]]:
    """Lines of two columns; a heading has an empty second one."""
    delays = simulate(plan)
    speech = f"{plan.rate:g} publications/s of {plan.payload} bytes in each"
    yield f"{plan.members:,} members in {counted(plan.rooms, 'room')}, {speech}", ""
    yield f"{counted(plan.nodes, 'node')} of {counted(plan.cores, 'core')}", ""
    yield "members of the fullest worker", f"{plan.members_per_worker:,}"
    yield "of one room on it", f"{plan.members_per_pass:,}"
    yield "memory of a node, all at rest", f"{model.node_memory(plan) / 2**30:.1f} GiB"
    yield "more if one in a hundred stalls", f"{model.stalled_memory(plan, 0.01) / 2**30:.1f} GiB"
    yield "CPU of the fullest worker", ""
    yield "fan-out", f"{100 * max(0.0, delays.busy - model.other_cpu(plan)):.1f} %"
    yield "heartbeats", f"{100 * model.heartbeat_cpu(plan):.1f} %"
    yield "publications from the broker", f"{100 * model.hearing_cpu(plan):.1f} %"
    yield "messages of its members", f"{100 * model.publishing_cpu(plan):.1f} %"
    yield "A message", ""
    yield "in one pass with, on average", f"{delays.batch:.1f}"
    grows = " and grows: more comes than can go" if delays.behind else ""
    yield "to the last member, p50", f"{delays.p50 * 1e3:,.1f} ms{grows}"
    yield "to the last member, p99", f"{delays.p99 * 1e3:,.1f} ms{grows}"
    yield from _traffic(plan, delays.batch)
    yield "Coming back", ""
    busy = model.other_cpu(plan)
    if plan.nodes > 1:
        yield "the members of one lost node, at least", f"{model.reconnect_seconds(plan, busy, lost=1):,.1f} s"
    yield "all, after a restart of everything", f"{model.reconnect_seconds(plan, busy):,.1f} s"
    yield "Nodes needed", ""
    for what, passes in checks(limits).items():
        needed = nodes_needed(plan, passes)
        yield f"for {what}", f"{needed:,}" if needed is not None else f"more than {MOST_NODES:,}, or another plan"


def counted(number: int, what: str) -> str:
    """So many of them."""
    return f"{number:,} {what}{'s' if number > 1 else ''}"


def _traffic(plan: Plan, batch: float) -> Iterator[tuple[str, str]]:
    out, broker_in, broker_out = model.egress(plan, batch), model.broker_in(plan), model.broker_out(plan)
    yield "Traffic", ""
    yield "deliveries of a node", f"{out.messages:,.0f}/s"
    yield "egress of a node", f"{out.bytes * 8 / 1e6:,.1f} Mbit/s"
    yield "egress of all", f"{out.bytes * plan.nodes * 8 / 1e9:,.2f} Gbit/s, {monthly(plan, out.bytes):,.1f} TB a month"
    yield "into the broker", f"{broker_in.messages:,.0f} publications/s, {broker_in.bytes / 1e6:,.2f} MB/s"
    yield "out of the broker", f"{broker_out.messages:,.0f} publications/s, {broker_out.bytes / 1e6:,.2f} MB/s"
    busy = model.broker_cpu(plan)
    more = "; spread the rooms over a cluster" if busy > BROKER_BUSY else ""
    yield "CPU of the broker", f"{100 * busy:.1f} %{more}"


def monthly(plan: Plan, node_bytes: float) -> float:
    """Terabytes of all nodes in 30 days at this rate."""
    return node_bytes * plan.nodes * 30 * 86_400 / 1e12


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--members", type=click.IntRange(1), default=1_000_000, help="On all nodes, each in one room.")
@click.option("--rooms", type=click.IntRange(1), default=1, help="Of equal size, spread over all nodes.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1.0, help="Publications/s in each room.")
@click.option("--payload", type=click.IntRange(1), default=128, help="Bytes of a publication.")
@click.option("--nodes", type=click.IntRange(1), default=50, help="Machines.")
@click.option("--cores", type=click.IntRange(1), default=4, help="Of each machine, with a worker on each.")
@click.option("--ping-interval", type=click.FloatRange(1), default=25.0, help="Seconds between heartbeats.")
@click.option("--memory", type=click.FloatRange(0, min_open=True), default=16.0, help="GiB of a node.")
@click.option("--connections", type=click.IntRange(1), default=522_240, help="Open files of a worker, less 2,048.")
@click.option("--bandwidth", type=click.FloatRange(0, min_open=True), default=5_000.0, help="Mbit/s of a node.")
@click.option("--last-member", type=click.FloatRange(0, min_open=True), default=0.5, help="Seconds good enough, p99.")
@click.option("--reconnect", type=click.FloatRange(0, min_open=True), default=60.0, help="Seconds until all are back.")
def main(
    members: int,
    rooms: int,
    rate: float,
    payload: int,
    nodes: int,
    cores: int,
    ping_interval: float,
    memory: float,
    connections: int,
    bandwidth: float,
    last_member: float,
    reconnect: float,
) -> None:
    """Say what a plan costs and how many nodes it needs."""
    if rooms > members:
        raise click.UsageError(f"--rooms {rooms} are more than --members {members}, and each member is in one room")
    plan = Plan(
        members=members,
        rooms=rooms,
        rate=rate,
        payload=payload,
        nodes=nodes,
        cores=cores,
        ping_interval=ping_interval,
    )
    limits = Limits(
        memory=memory * 2**30,
        connections=connections,
        bandwidth=bandwidth * 1e6 / 8,
        last_member=last_member,
        reconnect=reconnect,
    )
    for name, value in report(plan, limits):
        click.echo(f"  {name:40}{value}" if value else f"\n{name}:")


if __name__ == "__main__":
    main()
