"""What holds up the event loop is seen, and what the process uses."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioroom._net import vitals as module
from trioroom._net.vitals import Vitals, read_process_figures


async def test_loop_that_comes_late_is_seen_by_how_much(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    vitals = Vitals()
    nursery.start_soon(vitals.run)
    for late in (0.0, 0.04, 0.0):
        await wait_all_tasks_blocked()
        mock_clock.jump(0.25 + late)
    await wait_all_tasks_blocked()
    assert vitals.loop_lag.count == 3
    assert vitals.loop_lag.sum == pytest.approx(0.04)
    assert vitals.longest_loop_lag == pytest.approx(0.04)
    mock_clock.jump(150)
    assert vitals.longest_loop_lag == 0


async def test_clock_that_passes_minutes_at_once_is_looked_at_seldom(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    vitals = Vitals()
    nursery.start_soon(vitals.run)
    await trio.sleep(86_400)
    assert vitals.loop_lag.count < 86_400 / 60 + 20


async def test_collections_are_timed_by_generation_while_somebody_watches(nursery: trio.Nursery) -> None:
    vitals = Vitals()
    gc.collect(1)
    callbacks = len(gc.callbacks)
    nursery.start_soon(vitals.run)
    await wait_all_tasks_blocked()
    before = [pauses.count for pauses in vitals.gc_pauses]
    gc.collect(1)
    gc.collect(2)
    gc.collect(2)
    counted = [pauses.count - count for pauses, count in zip(vitals.gc_pauses, before, strict=True)]
    assert counted[1:] == [1, 2]
    assert 0 < vitals.gc_pauses[2].sum < 60
    nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()
    assert len(gc.callbacks) == callbacks


async def test_figures_are_those_of_this_process() -> None:
    before = time.process_time()
    figures = await read_process_figures()
    assert before <= figures.cpu_seconds <= time.process_time()
    assert figures.max_open_files >= 256
    assert figures.resident_bytes is not None
    assert figures.open_files is not None
    assert figures.started_at is not None
    assert 1 << 20 < figures.resident_bytes < 1 << 40
    assert abs(figures.open_files - len(os.listdir("/proc/self/fd"))) <= 2
    assert 0 < time.time() - figures.started_at < 86_400


async def test_files_are_listed_where_their_number_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = (await read_process_figures()).open_files
    stat = os.stat

    def tell_no_size(path: str) -> os.stat_result:
        fields = list(stat(path))
        fields[6] = 0  # st_size
        return os.stat_result(fields)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", tell_no_size)
        assert (await read_process_figures()).open_files == exact


async def test_what_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FILES", "_PAGES", "_STATUS"):
        monkeypatch.setattr(module, name, Path("/nowhere"))
    figures = await read_process_figures()
    assert (figures.resident_bytes, figures.open_files, figures.started_at) == (None, None, None)
