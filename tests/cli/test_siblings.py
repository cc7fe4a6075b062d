"""Workers of one port answer for each other: one scrape tells of all, whichever of them is asked."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.cli.conftest import DEADLINE, open_command, open_remote_peer
from tests.scraping import Numbers, scrape, until
from trioroom._net.metrics import Format
from trioroom.cli import siblings
from trioroom.cli.siblings import ROSTER_VARIABLE, Roster, UnixSiblings, open_roster, open_siblings

TWO = ("--workers", "2", "--backplane", "embedded", "--port", "0")
OPENMETRICS = "Accept: application/openmetrics-text"


async def sums(port: int, name: str) -> tuple[float, Numbers]:
    """A number of all workers together, and all numbers."""
    found = (await scrape(port)).numbers
    return sum(value for key, value in found.items() if key[0] == name), found


@pytest.mark.redis
async def test_one_worker_tells_of_all(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, "--set", "public_metrics=true", directory=pids) as command:
        port = await command.wait_port()
        with trio.fail_after(DEADLINE):
            async with AsyncExitStack() as stack:
                for _ in range(20):  # the kernel spreads them
                    await stack.enter_async_context(open_remote_peer(port, "/pids/a"))
                while (found := await sums(port, "members"))[0] != 20:
                    pass
                numbers = found[1]
                assert numbers["worker_up", "1"] == numbers["worker_up", "2"] == 1
                assert numbers["connections_opened_total", "1"] > 0
                assert numbers["connections_opened_total", "2"] > 0
                assert numbers["connections", "plain", "1"] + numbers["connections", "plain", "2"] == 20
                assert numbers["backplane_up", "1"] == numbers["backplane_up", "2"] == 1
            opened = await scrape(port, "GET", OPENMETRICS)
        assert opened.body.count("# EOF") == 1
        assert {sample.labels["worker"] for family in opened.families for sample in family.samples} == {"1", "2"}


@pytest.mark.redis
async def test_worker_that_is_stopped_or_dead_is_told_as_down(pids: Path) -> None:
    options = ("--set", "public_metrics=true", "--port-per-worker", "--log-level", "debug")
    async with open_command("serve", "pids:app", *TWO, *options, directory=pids) as command:
        first = int((await command.wait_said(r":(\d+)/ \(worker 1 of 2;"))[1])
        victim = int((await command.wait_said(r"worker 2 serves \(pid (\d+)\)"))[1])
        with trio.fail_after(DEADLINE):
            await until(first, ("worker_up", "2"), 1)
            os.kill(victim, signal.SIGSTOP)
            began = trio.current_time()
            found = (await scrape(first)).numbers
            assert 1 <= trio.current_time() - began < 5
            assert (found["worker_up", "1"], found["worker_up", "2"]) == (1, 0)
            assert found["rooms", "1"] == 0
            assert ("rooms", "2") not in found
            os.kill(victim, signal.SIGKILL)
            await until(first, ("worker_up", "2"), 1)  # its successor


# -- without processes -----------------------------------------------------------------------------


@asynccontextmanager
async def open_worker() -> AsyncIterator[tuple[UnixSiblings, UnixSiblings]]:
    """This process as worker 1, and worker 2 as it would see it."""
    with open_roster() as roster:
        assert roster.directory is not None
        roster.note(1, os.getpid())
        roster.note(2, OTHER_PID)
        async with open_siblings() as one:
            assert one is not None
            yield one, UnixSiblings(roster.directory, OTHER_PID)


OTHER_PID = 1 << 30  # of nobody: more than the kernel gives


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where rosters are made; short, as paths of sockets have to be."""
    with tempfile.TemporaryDirectory() as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


def test_roster_is_for_nobody_else_and_gone_in_the_end(directory: Path) -> None:
    with open_roster() as roster:
        assert roster.directory is not None
        assert roster.directory.parent == directory
        assert os.environ[ROSTER_VARIABLE] == str(roster.directory)
        assert stat.S_IMODE(roster.directory.stat().st_mode) == 0o700
        roster.note(1, os.getpid())
    assert ROSTER_VARIABLE not in os.environ
    assert list(directory.iterdir()) == []


def test_roster_of_a_parent_that_was_killed_is_removed_by_the_next_one(directory: Path) -> None:
    script = "import os; from trioroom.cli.siblings import open_roster\nwith open_roster(): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(directory)})
    (left,) = directory.iterdir()
    with open_roster() as living, open_roster():
        there = set(directory.iterdir())
    assert living.directory in there
    assert left not in there


async def test_directories_of_others_are_not_opened(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may make one that looks like a roster, with a FIFO in it that would hold up who opens it for ever."""
    foreign = directory / "trioroom-workers-foreign"
    foreign.mkdir()
    os.mkfifo(foreign / "parent")
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody_else)

    def run() -> bool:
        with open_roster():
            return foreign.exists()

    with trio.fail_after(DEADLINE):
        assert await trio.to_thread.run_sync(run, abandon_on_cancel=True)


async def test_sibling_is_asked_by_a_path_and_tells_what_is_there() -> None:
    async def tell() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"told\n" * 100_000

    async with open_worker() as (one, other):
        one.serve("metrics", tell)
        assert (one.number, other.number) == (1, 2)
        assert await other.ask("metrics") == {1: b"told\n" * 100_000}
        assert await one.ask("metrics") == {2: None}  # it does not listen


@pytest.mark.parametrize("path", ["nothing", "", "/etc/passwd", "../1", "x" * 10_000, "metrics\nmetrics"])
async def test_nothing_else_can_be_had(path: str) -> None:
    async with open_worker() as (one, other):
        one.serve("metrics", trio.lowlevel.checkpoint)  # type: ignore[arg-type]  # never called
        assert await other.ask(path) == {1: None}


async def test_sibling_whose_answer_fails_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> bytes:
        raise ValueError("broken")

    async def tell() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"told"

    async with open_worker() as (one, other):
        one.serve("broken", fail)
        one.serve("well", tell)
        assert await other.ask("broken") == {1: None}
        assert await other.ask("well") == {1: b"told"}
    assert "no answer for another worker" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"5\ntold", b"nonsense", b"4", b"3\ntold"])
async def test_answer_that_is_cut_off_is_none(answer: bytes, nursery: trio.Nursery) -> None:
    async def answer_so(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(answer)

    async with open_worker() as (one, _):
        listener = await siblings._listen(siblings._socket_of(one._directory, OTHER_PID))
        await nursery.start(trio.serve_listeners, answer_so, [listener])
        assert await one.ask("metrics") == {2: None}


async def test_sibling_that_says_nothing_is_not_waited_for_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_worker() as (one, _):
        listener = await siblings._listen(siblings._socket_of(one._directory, OTHER_PID))
        await nursery.start(trio.serve_listeners, hang, [listener])
        began = trio.current_time()
        assert await one.ask("metrics") == {2: None}
        assert trio.current_time() - began == pytest.approx(1)


async def hang(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_socket_of_a_dead_worker_that_had_our_pid_is_not_in_the_way(caplog: pytest.LogCaptureFixture) -> None:
    async def tell() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"told"

    with open_roster() as roster:
        assert roster.directory is not None
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(roster.directory / f"{os.getpid()}.socket"))
        roster.note(1, os.getpid())
        async with open_siblings() as one:
            assert one is not None
            one.serve("metrics", tell)
            assert await UnixSiblings(roster.directory, OTHER_PID).ask("metrics") == {1: b"told"}
    assert not caplog.records


async def test_process_that_took_our_place_is_the_one_that_is_asked() -> None:
    async with open_worker() as (one, _):
        Roster(one._directory).note(1, OTHER_PID)
        assert one.number == 0


def test_socket_that_a_killed_worker_has_left_goes_when_the_next_one_is_noted(directory: Path) -> None:
    with open_roster() as roster:
        assert roster.directory is not None
        roster.note(1, OTHER_PID)
        left = roster.directory / f"{OTHER_PID}.socket"
        left.touch()
        roster.note(2, 2)
        assert left.exists()
        roster.note(1, 1)
        assert not left.exists()


async def test_worker_without_a_key_tells_its_siblings_that_may_have_one() -> None:
    async with open_worker() as (one, other), trioroom.open_server(trioroom.App(), None, siblings=one):
        told = (await other.ask(Format.TEXT.path))[1]
    assert told is not None
    assert b'{worker="1"}' in told


async def test_server_of_its_own_has_no_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROSTER_VARIABLE, raising=False)
    async with open_siblings() as none:
        assert none is None


async def test_where_no_directory_can_be_made_workers_serve_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    with open_roster() as roster:
        assert ROSTER_VARIABLE not in os.environ
        roster.note(1, os.getpid())
        async with open_siblings() as none:
            assert none is None
    assert "each worker tells its own metrics only" in caplog.text


def test_where_no_file_can_be_locked_workers_serve_without(
    monkeypatch: pytest.MonkeyPatch, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")  # as some file systems of networks do

    monkeypatch.setattr(fcntl, "flock", refuse)
    with open_roster() as roster:
        assert roster.directory is None
    assert "each worker tells its own metrics only" in caplog.text
    assert list(directory.iterdir()) == []


async def test_worker_that_cannot_listen_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ROSTER_VARIABLE, str(tmp_path / ("x" * 100)))  # too long for a socket
    async with open_siblings() as alone:
        assert alone is not None
        assert (alone.number, await alone.ask("metrics")) == (0, {})
    assert "the other workers cannot ask this one" in caplog.text
