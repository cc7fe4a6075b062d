"""The programs in the documentation run, and do what the page beside them says."""

from __future__ import annotations

import gc
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.backplane.processes import free_port, until
from tests.backplane.redis.servers import binaries, open_redis_server
from trioroom import App, ConnectionClosed, History, Member, Message, Room, open_server
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
DEADLINE = 30  # seconds for one example


class Chat(Room):
    history = History(100)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the folder of the examples, where they find each other as a user's files do."""
    command = [sys.executable, "-u", *arguments]
    with subprocess.Popen(
        command, cwd=EXAMPLES, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    """The address that a server prints first."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"wss?://\S+", line)
    assert found is not None, line + process.stdout.read()
    return found[0]


def stop(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and again, as people do: Python loses one that comes while a weak reference calls back.

    That is where it often comes here, with connections that have just ended. Commands take signals by other ways.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
            return
    raise AssertionError("it goes on")


async def text_from(connection: WebSocketConnection) -> str:
    message = await connection.get_message()
    assert isinstance(message, str)
    return message


async def say_until_heard(speaker: WebSocketConnection, listener: WebSocketConnection, text: str) -> None:
    """Once both are in the room, of which nothing tells them."""
    while True:
        await speaker.send_message(text)
        with trio.move_on_after(0.2):
            while not (await text_from(listener)).endswith(f": {text}"):
                pass
            return


def test_chat_of_the_readme_is_the_one_that_is_tested() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert (EXAMPLES / "chat.py").read_text("utf-8") in blocks


async def test_first_room_sends_back_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from first_room import app

    async with open_test_server(app) as server, open_peer(server, "/echo") as one, open_peer(server, "/echo") as two:
        await one.send("hello")
        assert (await one.receive(), await two.receive()) == ("hello", "hello")


async def test_chat_tells_who_came_what_was_said_and_who_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from chat import app

    async with open_test_server(app) as server, open_peer(server, "/chat/lobby") as one:
        async with open_peer(server, "/chat/lobby") as two:
            assert re.fullmatch(r"\* \w{16} came to lobby", str(await one.receive()))
            await two.send("hello")
            assert re.fullmatch(r"\w{16}: hello", str(await one.receive()))
        assert re.fullmatch(r"\* \w{16} left: connection lost", str(await one.receive()))


async def test_cursors_keep_the_latest_of_each_and_previews_are_for_who_can_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from cursors import app

    rounds, text = 300, "x" * 20_000  # 12 MB: more than the kernel's part
    with trio.fail_after(DEADLINE):
        async with (
            open_test_server(app, tcp=True) as server,
            open_peer(server, "/cursors/1", tcp=True) as slow,
            open_peer(server, "/cursors/1") as one,
            open_peer(server, "/cursors/1") as two,
        ):
            for number in range(rounds):
                for mover, other in ((one, two), (two, one)):
                    await mover.send(f"{number} {text}")
                    assert await other.receive() == f"{number} {text}"
            seen: list[int] = []
            while seen.count(rounds - 1) < 2:
                seen.append(int(str(await slow.receive()).partition(" ")[0]))
            assert len(seen) < rounds  # of 600
        async with open_test_server(app, tcp=True) as server, open_peer(server, "/preview") as watcher:
            pictures = [await watcher.receive() for _ in range(3)]
            first, *others = [picture[-1] for picture in pictures if isinstance(picture, bytes)]
            assert others == [first + 1, first + 2]


async def test_list_of_who_is_here_follows_what_the_server_says(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from who_is_here import app
    from who_is_here_client import WhoIsHere

    async def follow(v1: V1Peer, here: WhoIsHere) -> None:
        with trio.move_on_after(5):
            while True:
                if (question := here.receive(await v1.receive())) is not None:
                    await v1.send(question)

    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        assert (await v1.request("join", room="lounge/a"))["code"] == "denied"
        await v1.request("auth", token="Ann")
        await v1.join("lounge/a")
        here = WhoIsHere("lounge/a")
        await v1.send(here.ask())
        async with open_peer(server, "/lounge/a?name=Bob"), open_peer(server, "/lounge/a?name=Bob"):
            await follow(v1, here)
            assert (here.users, here.count) == ({"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}, 2)
            answer = await v1.request("call", room="lounge/a", data="who?")
            assert answer["data"] == "2 here, among them ann, bob"
        await follow(v1, here)
        assert (here.users, here.count) == ({"ann": {"name": "Ann"}}, 1)


async def test_chat_for_members_lets_in_who_has_a_token_for_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    monkeypatch.setenv("CHAT_SECRET", "0123456789abcdef0123456789abcdef")
    from issue_token import issue
    from members_only import app

    async with open_test_server(app) as server:
        async with (
            open_peer(server, f"/chat/lobby?token={issue('ann', ['lobby'])}") as ann,
            open_v1_peer(server) as bob,
        ):
            assert (await bob.request("join", room="chat/lobby"))["code"] == "unauthenticated"
            assert (await bob.request("auth", token=issue("bob", ["lobby"])))["expires_in"] == pytest.approx(310, abs=5)
            await bob.join("chat/lobby")
            await ann.send("hello")
            while (said := await bob.receive())["type"] == "presence":
                pass  # before or after, as it comes
            assert said["data"] == "ann: hello"
            refused = await bob.request("join", room="chat/kitchen")
            assert (refused["code"], refused["message"]) == ("denied", "bob may not join kitchen")
        with pytest.raises(ConnectionClosed, match="401 Unauthorized"):
            async with open_peer(server, "/chat/lobby"):
                pass


@pytest.mark.parametrize(
    ("cookie", "status"), [("session=3c9d0e", 101), ("session=guess", 401), ("a=b", 401), ("", 401)]
)
async def test_session_of_a_web_application_opens_its_rooms(
    cookie: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from sessions import app

    request = (
        "GET /chat/lobby HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
    )
    async with open_test_server(app, tcp=True) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(request.encode())
            answer = await stream.receive_some()
    assert int(answer.split()[1]) == status


async def wait(condition: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return condition()

    await until(ask, "the reader has it", DEADLINE)


# trio-websocket leaves open the socket of a connection that the server refused, as it does while it drains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_reader_misses_nothing_while_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from news import app
    from news_client import NewsReader

    backplane = MemoryBackplane()

    async with trio.open_nursery() as nursery:
        async with open_test_server(app, backplane=backplane, tcp=True) as server:
            reader = NewsReader(f"ws://127.0.0.1:{server.port}/", "news/a")
            nursery.start_soon(reader.run)
            await wait(lambda: reader.position is not None)
            await app.publish("news/a", "one")
            await wait(lambda: reader.read == ["one"])
        async with open_test_server(app, backplane=backplane, tcp=True):
            await app.publish("news/a", "two")
        async with open_server(app, port=server.port, backplane=backplane):
            await app.publish("news/a", "three")
            await wait(lambda: len(reader.read) == 3)
            assert (reader.read, reader.complete) == (["one", "two", "three"], True)
            nursery.cancel_scope.cancel()
    gc.collect()  # now, while the warning is ignored


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
async def test_reader_publishes_once_what_was_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from news import News, app
    from news_client import NewsReader

    published = trio.Event()

    class Silent(News):
        async def on_message(self, member: Member, message: Message) -> None:
            await super().on_message(member, message)
            published.set()
            await trio.sleep_forever()

    silent, backplane = App(), MemoryBackplane()
    silent.route("news/{name}", Silent)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as crash:
                async with open_test_server(silent, backplane=backplane, tcp=True) as server:
                    reader = NewsReader(f"ws://127.0.0.1:{server.port}/", "news/a")
                    nursery.start_soon(reader.run)
                    await reader.publish("mine")  # it goes when the room is joined
                    await published.wait()
                    crash.cancel()
                    await trio.sleep_forever()
            await reader.publish("and mine")  # while there is no server
            async with open_server(app, port=server.port, backplane=backplane) as server, open_v1_peer(server) as v1:
                await wait(lambda: not reader.unanswered)
                await app.publish("news/a", "the end")
                await wait(lambda: reader.read[-1:] == ["the end"])
                assert reader.read == ["mine", "the end"]  # the first by recovery, as another member than who said it
                await v1.join("news/a")
                page = await v1.request("history", room="news/a")
                assert [message["data"] for message in page["messages"]] == ["mine", "and mine", "the end"]
                nursery.cancel_scope.cancel()


async def test_server_in_a_program_serves_until_interrupted() -> None:
    with trio.fail_after(DEADLINE), running("in_a_program.py") as process:
        url = url_of(process)
        async with open_websocket_url(url) as one, open_websocket_url(url) as two:
            assert "came to lobby" in await text_from(one)
            await two.send_message("hello")
            assert (await text_from(one)).endswith(": hello")
        stop(process)


def test_server_in_a_program_dumps_its_tasks_on_a_signal() -> None:
    with running("-c", "import trio, dump_on_signal as d; trio.run(d.main, 0)") as process:
        url_of(process)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert "tasks, counted in" in process.stdout.readline()
        stop(process)


async def test_traced_server_prints_its_spans() -> None:
    with trio.fail_after(DEADLINE), running("-c", "import trio, traced; trio.run(traced.main, 0)") as process:
        async with open_websocket_url(url_of(process)) as one:
            await one.send_message("hello")
        process.send_signal(signal.SIGINT)
        output = await trio.to_thread.run_sync(lambda: process.communicate(timeout=DEADLINE)[0])
    for name in ("on_join Chat", "on_message Chat", "publish", "on_leave Chat"):
        assert f'"name": "{name}"' in output, output
    assert '"service.name": "chat"' in output


async def test_tls_server_is_reached_by_wss(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    program = f"import trio, tls_server; trio.run(tls_server.main, '{tmp_path}/cert.pem', '{tmp_path}/key.pem', 0)"
    with trio.fail_after(DEADLINE), running("-c", program) as process:
        url = url_of(process)
        assert url.startswith("wss://")
        async with open_websocket_url(url, ssl_context=trusting) as one, open_websocket_url(url, trusting) as two:
            assert "came to lobby" in await text_from(one)
            await two.send_message("hello")
            assert (await text_from(one)).endswith(": hello")
        stop(process)


@pytest.mark.redis
async def test_linked_servers_share_their_rooms() -> None:
    async with open_redis_server(binaries()["valkey"]) as broker:
        linked = partial(running, "linked.py", broker.url)
        with trio.fail_after(DEADLINE), linked() as here, linked() as there:
            # One member speaks v1, to be told when it is in the room: its server has to ask the broker for that.
            async with open_websocket_url(url_of(here), subprotocols=["trioroom.v1.json"]) as one:
                await one.send_message('{"type":"join","id":1,"room":"chat/lobby"}')
                while '"type":"ok"' not in await text_from(one):
                    pass
                async with open_websocket_url(url_of(there)) as two:
                    assert "came to lobby" in await text_from(one)
                    await two.send_message("hello")
                    assert ": hello" in await text_from(one)
            stop(here)
            stop(there)


async def test_client_shows_what_comes_and_sends_what_is_typed() -> None:
    with trio.fail_after(DEADLINE), running("in_a_program.py") as server:
        url = url_of(server)
        async with open_websocket_url(url) as witness:
            with running("plain_client.py", url) as client:
                assert "came to lobby" in await text_from(witness)
                assert client.stdin is not None
                client.stdin.write("hello\n")
                client.stdin.flush()
                assert (await text_from(witness)).endswith(": hello")
                await witness.send_message("good day")
                assert client.stdout is not None
                assert client.stdout.readline().endswith(": good day\n")
                client.communicate(timeout=DEADLINE)  # closes its input, and so the client ends
                assert client.returncode == 0
        stop(server)


async def test_chat_client_goes_on_over_a_restart_of_its_server() -> None:
    app = App()
    app.route("chat/{name}", Chat)
    backplane, port = MemoryBackplane(), free_port()
    with trio.fail_after(DEADLINE), running("chat_client.py", f"ws://127.0.0.1:{port}/", "chat/lobby") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        next_line = partial(trio.to_thread.run_sync, client.stdout.readline)
        assert "not connected" in await next_line()
        async with open_server(app, port=port, backplane=backplane) as server, open_v1_peer(server) as v1:
            while "joined chat/lobby" not in await next_line():
                pass
            await v1.join("chat/lobby")
            client.stdin.write("hello\n")
            client.stdin.flush()
            assert (await v1.receive())["data"] == "hello"
        async with open_server(app, port=port, backplane=backplane) as server, open_v1_peer(server) as v1:
            await app.publish("chat/lobby", "meanwhile")
            while not (await next_line()).endswith(": meanwhile\n"):
                pass  # not connected; and its own words, as it is another member now
            await v1.join("chat/lobby")
            client.stdin.close()
            while await next_line():
                pass
            assert client.wait() == 0


async def test_rooms_are_shared_with_a_trio_websocket_server() -> None:
    program = "import trio, mounted; trio.run(mounted.main, 0)"
    with trio.fail_after(DEADLINE), running("-c", program) as process:
        assert process.stdout is not None
        mounted, own = re.findall(r"ws://\S+", process.stdout.readline())
        async with open_websocket_url(mounted) as one, open_websocket_url(own) as two:
            await say_until_heard(two, one, "hello")
            await say_until_heard(one, two, "good day")
        async with open_websocket_url(mounted.replace("/chat/lobby", "/time")) as clock:
            assert ":" in await text_from(clock)
        stop(process)


def test_tests_of_the_how_to_pass() -> None:
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "--import-mode=prepend", "-n0"]
    tests = sorted(path.name for path in EXAMPLES.glob("test_*.py"))
    with running("-m", "pytest", "-q", "-p", "pytest_trioroom", "-p", "no:cacheprovider", *config, *tests) as process:
        output, _ = process.communicate(timeout=DEADLINE)
    assert re.search(r"^\d+ passed in", output, re.M), output
    page = (ROOT / "docs" / "howto" / "test-your-rooms.md").read_text("utf-8")
    assert [name for name in tests if name not in page] == []
