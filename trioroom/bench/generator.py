"""A generator process: it does the steps that the parent names, and hands over what it has counted."""

from __future__ import annotations

import gc
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from trioroom.bench.connecting import Connector
from trioroom.bench.handshakes import Opening
from trioroom.bench.machine import resident_bytes
from trioroom.bench.options import Share
from trioroom.bench.pulse import Pulse, Stalled, Stopped
from trioroom.bench.scenarios.base import WAIT, Play
from trioroom.bench.shared import Shared
from trioroom.bench.swarm import Swarm
from trioroom.bench.tally import Finished, StepDone, Tally
from trioroom.bench.target import Target

FINISH = ""
"""What the parent sends instead of a step: hand over. In the midst of a step it means at once."""


def generate(
    share: Share, target: Target, shared: Shared, link: Connection, server: int | None, scenario: type[Play]
) -> None:
    """All that a process does. Its parent ends it by `FINISH`, or by its own end, which closes ``link``.

    Args:
        server: the process of a server that the parent has started, and would leave behind when it is killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then asks for what there is
    gc.disable()  # nothing here makes cycles, and a collection would be taken for the server's latency
    tally = Tally()
    swarm = Swarm(tally)
    opening = Opening(swarm, Connector(target, share.first, share.options.members), share.options.handshakes)
    pulse = Pulse(link, share.process, tally.counts, shared, share.options.patience)
    play = scenario(share, target, swarm, opening, pulse, shared)
    before = resident_bytes()
    try:
        while (step := _wait_for_step(link, swarm)) != FINISH:
            link.send(_take(step, play))
        pulse.tell()  # heartbeats have been answered since the last step
        link.send(Finished(share.process, tally, before, resident_bytes()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if server is not None and share.process == 0:
            with suppress(ProcessLookupError):
                os.kill(server, signal.SIGTERM)
    finally:
        swarm.close()


def _wait_for_step(link: Connection, swarm: Swarm) -> str:
    """Answer heartbeats while other processes are not done yet."""
    while not link.poll():
        swarm.turn(WAIT)
    step: str = link.recv()
    return step


def _take(step: str, play: Play) -> StepDone:
    began, cpu, complaint = time.monotonic(), time.process_time(), None
    play.pulse.start()
    try:
        getattr(play, step)()
    except Stalled as exc:
        complaint = str(exc)
        play.opening.give_up("no answer in the handshake")
    except Stopped:
        pass  # the next thing to be read says so
    play.pulse.tell()
    return StepDone(play.share.process, step, began, time.monotonic(), time.process_time() - cpu, complaint)
