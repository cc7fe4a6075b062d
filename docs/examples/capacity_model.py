"""What a plan costs: memory, CPU by cause, traffic. Tests hold it to points that were measured."""

from __future__ import annotations

import math
from typing import NamedTuple

import attrs

SEGMENT_BYTES = 1_448  # of payload, in a TCP segment on Ethernet
SEGMENT_OVERHEAD = 52  # IPv4 and TCP headers, with timestamps
PUBLICATION_OVERHEAD = 100  # of a publication on its way from the broker: channel, sender, lengths


@attrs.frozen
class Costs:
    """On one core of a 2-core cloud machine (Linux 6.18, Python 3.11), over loopback. Yours differ: measure them."""

    member_bytes: int = 4_640
    """Of the server process, for a member at rest."""
    kernel_bytes: int = 3_400
    """Of the kernel, for the server's end of its connection."""
    process_bytes: int = 36 << 20
    """Of a worker before anybody has come."""
    send: float = 8.3e-6
    """CPU seconds of one system call to one member, whatever it carries."""
    send_byte: float = 0.15e-9
    """And of each byte in it."""
    outbox: float = 85e-6
    """Instead, when the kernel does not take it all: an outbox and a writer's task come in."""
    kernel_takes: int = 96 << 10
    """Bytes for one member that it takes at once, if that reads; somewhere from 66 to 131 KB."""
    publish: float = 19e-6
    """Of a publication at its room's fan-out on each worker, for whatever number of members."""
    heartbeat: float = 30e-6
    """Of a ping and its pong."""
    handshake: float = 123e-6
    """Of a handshake with a join, in plain mode and without TLS, if the head has something that no other one has."""
    inbound: float = 15e-6
    """Of a message that comes from a member, and its way to the hook and back to it (an echo)."""
    broker_in: float = 0.8e-6
    """Of Redis, for a publication that comes in."""
    broker_out: float = 0.13e-6
    """Of Redis, for each node it goes out to."""
    broker_byte: float = 0.4e-9
    """And for each byte that goes out."""
    node_publish: float = 8e-6
    """Of the worker that gives a publication to Redis."""
    node_hear: float = 6e-6
    """Of each worker that gets it from there."""


@attrs.frozen(kw_only=True)
class Plan:
    """What shall be borne, and on what."""

    members: int = 1_000_000
    """In all, on all nodes; each is in one room."""
    rooms: int = 1
    """Of equal size, whose members are spread evenly over the nodes."""
    rate: float = 1.0
    """Publications a second in each room, at random times."""
    payload: int = 128
    """Bytes of each."""
    nodes: int = 50
    """Machines."""
    cores: int = 4
    """Of each, with one worker on each."""
    ping_interval: float = 25.0
    """Seconds."""
    costs: Costs = Costs()

    @property
    def workers(self) -> int:
        """In all. Each is a node to the broker."""
        return self.nodes * self.cores

    @property
    def linked(self) -> bool:
        """Whether publications cross a broker: one worker alone needs none."""
        return self.workers > 1

    @property
    def members_per_worker(self) -> int:
        """Of the fullest one: the kernel draws lots, so that it has a few standard deviations more than the mean."""
        mean = self.members / self.workers
        return math.ceil(mean + math.sqrt(2 * math.log(self.workers) * mean))

    @property
    def members_per_pass(self) -> int:
        """Members of one room on one worker."""
        return max(1, round(self.members_per_worker / self.rooms))

    @property
    def rooms_per_worker(self) -> int:
        """Rooms with members there: all, unless there are more rooms than it has members."""
        return min(self.rooms, self.members_per_worker)

    @property
    def workers_per_room(self) -> float:
        """Nodes of the broker that a publication goes to."""
        return self.workers * self.rooms_per_worker / self.rooms


class Traffic(NamedTuple):
    """Of one kind, per second."""

    messages: float
    bytes: float


def frame_bytes(payload: int) -> int:
    """A server's frame of plain mode (RFC 6455, section 5.2). Protocol v1 adds some 80 bytes of JSON."""
    return payload + (2 if payload < 126 else 4 if payload < 65_536 else 10)


def on_the_line(size: int) -> int:
    """Bytes of IP that ``size`` bytes of one send are."""
    return size + SEGMENT_OVERHEAD * math.ceil(size / SEGMENT_BYTES)


def pass_cpu(costs: Costs, members: int, messages: int, payload: int) -> float:
    """CPU seconds of one pass of the fan-out: so many messages, joined, to each of so many members."""
    size = messages * frame_bytes(payload)
    each = costs.send + costs.send_byte * size
    if size > costs.kernel_takes:
        each += costs.outbox
    return members * each + messages * costs.publish


def node_memory(plan: Plan) -> int:
    """Bytes of one node, members at rest, for user and kernel; see `stalled_memory` for what comes on top."""
    costs = plan.costs
    each = costs.member_bytes + costs.kernel_bytes
    return plan.cores * (costs.process_bytes + plan.members_per_worker * each)


def stalled_memory(
    plan: Plan, share: float, outbox: int = 1 << 20, queued: int = 256 << 20, kernel: int = 21_000
) -> int:
    """Bytes of one node if such a share of its members reads nothing.

    Args:
        outbox: `Settings.max_outbox_bytes`.
        queued: `Settings.max_queued_bytes`, which bounds all of them, for each worker.
        kernel: what it keeps for one, with `Settings.socket_unsent_bytes` at its default.
    """
    stalled = math.ceil(plan.members_per_worker * share)
    return plan.cores * (stalled * kernel + min(stalled * outbox, queued))


def heartbeat_cpu(plan: Plan) -> float:
    """Cores' worth, of one worker."""
    return plan.members_per_worker / plan.ping_interval * plan.costs.heartbeat


def publishing_cpu(plan: Plan) -> float:
    """Cores' worth, of one worker: messages that its members send, and their way to Redis."""
    each = plan.costs.inbound + plan.costs.node_publish * plan.linked
    return plan.rooms * plan.rate / plan.workers * each


def hearing_cpu(plan: Plan) -> float:
    """Cores' worth, of one worker: publications that come from Redis."""
    return plan.rooms_per_worker * plan.rate * plan.costs.node_hear * plan.linked


def other_cpu(plan: Plan) -> float:
    """What is not fan-out, of one worker."""
    return heartbeat_cpu(plan) + publishing_cpu(plan) + hearing_cpu(plan)


def reconnect_seconds(plan: Plan, busy: float, lost: int | None = None) -> float:
    """Until the members of ``lost`` nodes are back on the others, or on all of them after a restart of everything.

    The least that it can take: clients that come evenly. ``busy`` is the share of each core that is taken.
    """
    left = plan.nodes if lost is None else plan.nodes - lost
    if left <= 0 or busy >= 1:
        return math.inf
    back = plan.members if lost is None else plan.members * lost / plan.nodes
    return back * plan.costs.handshake / (left * plan.cores * (1 - busy))


def egress(plan: Plan, batch: float) -> Traffic:
    """Of one node, IP headers included, with so many messages in a pass on average."""
    members = plan.members / plan.nodes
    deliveries = members * plan.rate
    size = on_the_line(round(batch * frame_bytes(plan.payload)))
    heartbeats = members / plan.ping_interval * (on_the_line(2) + SEGMENT_OVERHEAD)  # a ping, the ACK of its pong
    return Traffic(deliveries, deliveries / batch * size + heartbeats)


def broker_in(plan: Plan) -> Traffic:
    """Publications that come to Redis."""
    rate = plan.rooms * plan.rate * plan.linked
    return Traffic(rate, rate * (plan.payload + PUBLICATION_OVERHEAD))


def broker_out(plan: Plan) -> Traffic:
    """And that leave it: once for each worker with members in the room, not for each member."""
    rate = plan.rooms * plan.rate * plan.workers_per_room * plan.linked
    return Traffic(rate, rate * (plan.payload + PUBLICATION_OVERHEAD))


def broker_cpu_of(costs: Costs, nodes: float, payload: int) -> float:
    """CPU seconds of Redis for one publication that goes out to so many nodes."""
    return costs.broker_in + nodes * (costs.broker_out + costs.broker_byte * payload)


def broker_cpu(plan: Plan) -> float:
    """Cores' worth. One Redis has one for this; beyond it takes a cluster."""
    return broker_in(plan).messages * broker_cpu_of(plan.costs, plan.workers_per_room, plan.payload)
