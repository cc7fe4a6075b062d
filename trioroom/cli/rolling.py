"""The workers of a server, and how all of them are replaced, one by one, by such that have loaded everything anew.

A replacement serves before the one in its place is told to drain, so the port is never without workers. They come from
a process that loads the application as it is now (`starting`), which takes over when it has served; what it replaces
ends with the last of its workers. If the new ones do not serve, the old ones are still there.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import click
import trio

from trioroom.cli.keeper import Keeper, NeverServed
from trioroom.cli.siblings import NO_ROSTER, Roster
from trioroom.cli.starting import Starter

log = logging.getLogger("trioroom.workers")

_SERVE_TIMEOUT = 60.0  # seconds a replacement may take until it serves; an import that hangs must end some time

OpenStarter = Callable[[], AbstractAsyncContextManager[Starter]]


class _Generation:
    """Keepers whose workers have loaded the same; each runs in ``nursery``."""

    def __init__(self, starter: Starter, nursery: trio.Nursery) -> None:
        self.starter = starter
        self.nursery = nursery
        self.superseded = trio.Event()


async def _run_generation(open_starter: OpenStarter, *, task_status: trio.TaskStatus[_Generation]) -> None:
    """Until it is superseded and its last worker has ended."""
    async with open_starter() as starter, trio.open_nursery() as nursery:
        generation = _Generation(starter, nursery)
        task_status.started(generation)
        await generation.superseded.wait()


@attrs.frozen
class _Place:
    """Where one worker is, and who keeps it."""

    keeper: Keeper
    generation: _Generation


class Workers:
    """One on each of ``ports``, in ``nursery``.

    Args:
        open_starter: loads the application as it is now.
        roster: who serves is noted there, so that workers find each other.
    """

    def __init__(
        self,
        ports: Sequence[int],
        open_starter: OpenStarter,
        nursery: trio.Nursery,
        roster: Roster = NO_ROSTER,
    ) -> None:
        self._ports = ports
        self._open_starter = open_starter
        self._nursery = nursery
        self._roster = roster
        self._retired = False
        self._places: dict[int, _Place] = {}  # by the worker's number, from 1
        self._generations: list[_Generation] = []
        self._replacing: trio.CancelScope | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._ports)

    async def start_first(self) -> None:
        """Start one, alone: what is wrong with the configuration is wrong for each, and said once.

        Raises:
            click.exceptions.Exit: it cannot start, and has said why; with its exit code.
        """
        await self._start(1, await self._open_generation())

    async def start_others(self) -> None:
        """Start the rest; raises as `start_first`, in a group."""
        async with trio.open_nursery() as starting:
            for number in range(2, self.count + 1):
                starting.start_soon(self._start, number, self._generations[0])

    async def _start(self, number: int, generation: _Generation) -> None:
        keeper = self._make_keeper(number, generation)
        self._put(number, keeper, generation)
        try:
            await generation.nursery.start(keeper.run)
        except NeverServed as exc:
            raise click.exceptions.Exit(exc.code or 1) from exc

    def _make_keeper(self, number: int, generation: _Generation, *, once: bool = False) -> Keeper:
        start = generation.starter.on_port(self._ports[number - 1])
        return Keeper(number, start, once=once, on_serving=partial(self._roster.note, number))

    def send_signal(self, number: signal.Signals) -> None:
        """To each that serves."""
        for place in self._places.values():
            place.keeper.send_signal(number)

    def retire(self) -> None:
        """Have all drain and end, those too that start just now, and replace none any more."""
        self._retired = True
        if self._replacing is not None:
            self._replacing.cancel()
        for place in self._places.values():
            place.keeper.retire()
        for generation in self._generations:
            generation.superseded.set()

    async def replace(self) -> bool:
        """Replace all, one by one; False when that was given up, and the log says why. Not for two at a time."""
        began, count = trio.current_time(), self.count
        with trio.CancelScope() as self._replacing:
            log.info("restarting %d workers, one by one", count, extra={"workers": count})
            generation = await self._open_generation()
            try:
                for number in range(1, count + 1):
                    await self._replace_one(number, generation)
            except NeverServed as exc:
                old = f"{count - number + 1} of {count} workers go on as they were"
                log.error(
                    "restart given up: %s; %s; put that right, and send SIGHUP again",
                    exc,
                    old,
                    extra={"exit_code": exc.code},
                )
                return False
            finally:
                self._close_generations()
            took = trio.current_time() - began
            log.info("restarted %d workers in %.1f s", count, took, extra={"workers": count, "seconds": took})
            return True
        return False

    async def _replace_one(self, number: int, generation: _Generation) -> None:
        old = self._places[number].keeper
        keeper = self._make_keeper(number, generation, once=True)
        with trio.move_on_after(_SERVE_TIMEOUT) as patience:
            await generation.nursery.start(keeper.run)
        if patience.cancelled_caught:
            raise NeverServed(f"worker {number} does not serve within {_SERVE_TIMEOUT:g} s", None)
        self._put(number, keeper, generation)
        fields = {"worker": number, "pid": keeper.pid, "old_pid": old.pid}
        log.info("worker %d of %d: pid %s serves, pid %s drains", number, self.count, keeper.pid, old.pid, extra=fields)
        old.retire()
        await old.ended.wait()

    def _put(self, number: int, keeper: Keeper, generation: _Generation) -> None:
        self._places[number] = _Place(keeper, generation)
        if self._retired:
            keeper.retire()

    async def _open_generation(self) -> _Generation:
        generation: _Generation = await self._nursery.start(_run_generation, self._open_starter)
        self._generations.append(generation)
        if self._retired:
            generation.superseded.set()
        return generation

    def _close_generations(self) -> None:
        """Let those end that have no worker in any place; those that still drain are waited for."""
        used = [place.generation for place in self._places.values()]
        for generation in self._generations:
            if generation not in used:
                generation.superseded.set()
        self._generations = [generation for generation in self._generations if generation in used]
