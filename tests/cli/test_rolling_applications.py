"""A rolling restart of real applications: new code is served, and nobody notices but by a reconnect."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import (
    DEADLINE,
    NO_FORKS,
    STARTS_A_THREAD,
    Command,
    Ends,
    descendants,
    open_command,
    open_remote_peer,
)
from tests.cli.test_rolling import TWO
from trioroom import connect
from trioroom.client import Backoff, Gap, Message
from trioroom.errors import ConnectionClosed


def write_version(directory: Path, version: str) -> None:
    """``pids:app`` tells its version too, and is longer each time: Python looks at time and size of a file."""
    source = (directory / "pids.py").read_text().partition("\n# version")[0]
    answer = f"""
# version
class Versions(Pids):
    async def on_message(self, member, message):
        if message.data == "version?":
            member.send({version!r})
        else:
            await super().on_message(member, message)

app = trioroom.App()
app.route("pids/{{name}}", Versions)
"""
    (directory / "pids.py").write_text(source + answer + "#" * sum(version.encode()))


async def ask(port: int, question: str) -> str:
    async with open_remote_peer(port, "/pids/a") as peer:
        await peer.send(question)
        return str(await peer.receive())


async def restart(command: Command, times: int = 1) -> None:
    command.process.send_signal(signal.SIGHUP)
    await command.wait_said(r"(?s)" + r"restarted 2 workers in [\d.]+ s\n.*" * times)


@pytest.mark.redis
async def test_new_code_is_served_on_the_same_port_and_members_are_sent_over(pids: Path) -> None:
    write_version(pids, "one")
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        before = descendants(command.process.pid)
        async with open_remote_peer(port, "/pids/a") as member:
            assert await ask(port, "version?") == "one"
            write_version(pids, "two, which is longer")
            command.process.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                await member.receive()
            assert closed.value.code == 4101
        await command.wait_said(r"restarted 2 workers in [\d.]+ s\n")
        assert {await ask(port, "version?") for _ in range(20)} == {"two, which is longer"}
        await restart(command, 2)
        with trio.fail_after(DEADLINE):
            while len(after := descendants(command.process.pid)) != len(before):  # noqa: ASYNC110  # no other one stays
                await trio.sleep(0.01)
        ends = Ends(after)
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
        await ends.wait()
        assert "Traceback" not in command.output
        assert " ERROR " not in command.output


@pytest.mark.redis
async def test_application_that_does_not_load_any_more_changes_nothing(pids: Path) -> None:
    write_version(pids, "one")
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        before = descendants(command.process.pid)
        (pids / "pids.py").rename(pids / "kept.py")
        (pids / "pids.py").write_text("raise LookupError('no such thing')")
        command.process.send_signal(signal.SIGHUP)
        await command.wait_said(
            r"restart given up: worker 1 does not start: the fork server \(pid \d+\) ended by exit code 1"
        )
        assert command.output.count("LookupError: no such thing") == 1
        assert command.output.count(" ERROR ") == 1
        assert await ask(port, "version?") == "one"
        assert descendants(command.process.pid) == before
        (pids / "kept.py").rename(pids / "pids.py")
        await restart(command)


@pytest.mark.redis
async def test_release_that_is_gone_changes_nothing(
    pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    current.symlink_to(pids)
    monkeypatch.setenv("PWD", str(current))
    async with open_command("serve", "pids:app", *TWO, directory=current) as command:
        port = await command.wait_port()
        current.unlink()
        command.process.send_signal(signal.SIGHUP)
        await command.wait_said(r"restart given up: worker 1 does not start: \[Errno 2\] No such file or directory")
        assert await ask(port, "pid?")
        current.symlink_to(pids)
        await restart(command)


@pytest.mark.redis
async def test_restart_asked_for_amid_one_comes_after_it(pids: Path) -> None:
    source = "import sys, time\nif '--worker' in sys.argv:\n    time.sleep(0.5)\n"
    (pids / "slow.py").write_text(source + (pids / "pids.py").read_text())
    async with open_command("serve", "slow:app", *TWO, directory=pids) as command:
        await command.wait_port()
        command.process.send_signal(signal.SIGHUP)
        await command.wait_said("restarting 2 workers")
        for _ in range(3):
            command.process.send_signal(signal.SIGHUP)
        await command.wait_said(r"(?s)restarted 2 workers.*restarted 2 workers")
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
        assert command.output.count("restarting 2 workers") == 2


@pytest.mark.redis
async def test_port_per_worker_stays(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, "--port-per-worker", directory=pids) as command:
        ports = [int((await command.wait_said(rf":(\d+)/ \(worker {number} of 2;"))[1]) for number in (1, 2)]
        before = [await ask(port, "pid?") for port in ports]
        await restart(command)
        after = [await ask(port, "pid?") for port in ports]
        assert len({*before, *after}) == 4


@pytest.mark.redis
async def test_application_that_starts_threads_by_now_gets_workers_that_are_no_forks(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        (pids / "pids.py").write_text((pids / "pids.py").read_text() + "\n" + STARTS_A_THREAD)
        await restart(command)
        assert NO_FORKS in command.output
        assert int(await ask(port, "pid?")) in descendants(command.process.pid)


def is_ours(pid: int) -> bool:
    """Whether it is a worker or the fork server, and not the broker."""
    return b"--fork-server" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.redis
async def test_hangup_of_all_processes_is_for_the_parent_alone(pids: Path) -> None:
    """A service manager may send it to each of a service."""
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        children = {int(await ask(port, "pid?")) for _ in range(20)}
        before = descendants(command.process.pid)
        for pid in filter(is_ours, before):
            os.kill(pid, signal.SIGHUP)
        assert descendants(command.process.pid) == before
        assert {int(await ask(port, "pid?")) for _ in range(20)} <= children
        await restart(command)
        assert not {int(await ask(port, "pid?")) for _ in range(20)} & children
        assert " ended by " not in command.output


@pytest.mark.redis
async def test_no_message_of_a_room_with_history_is_lost_over_a_restart(tmp_path: Path) -> None:
    source = (
        "import trioroom\nclass Kept(trioroom.Room):\n    history = trioroom.History(size=1000, ttl=60)\n"
        "    async def on_message(self, member, message):\n"
        # Its id, as the publisher asks again when its server drains before it has answered.
        "        await self.publish(message.data, publication_id=message.publication_id)\n"
        "app = trioroom.App()\napp.route('kept/{name}', Kept)\n"
    )
    (tmp_path / "kept.py").write_text(source)
    got: dict[int, list[object]] = {number: [] for number in range(8)}
    open_url = partial(connect, backoff=Backoff(first=0.05, most=0.5))

    async def read(url: str, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_url(url) as client, client.join("kept/a") as room:
            task_status.started()
            async for event in room.events():
                assert not isinstance(event, Gap)
                if isinstance(event, Message):
                    if event.data == "the end":
                        return
                    got[number].append(event.data)

    async with open_command("serve", "kept:app", *TWO, directory=tmp_path) as command:
        url = f"ws://127.0.0.1:{await command.wait_port()}/"
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for number in got:
                    await nursery.start(read, url, number)
                async with open_url(url) as client, client.join("kept/a") as room:
                    command.process.send_signal(signal.SIGHUP)
                    sent = 0
                    while "restarted 2 workers" not in command.output:
                        await room.publish(sent)
                        sent += 1
                        await trio.sleep(0.01)
                    await room.publish("the end")
        assert sent > 5
        assert list(got.values()) == [list(range(sent))] * len(got)
