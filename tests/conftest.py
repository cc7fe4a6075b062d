"""What tests of several folders share, and those of rooms.

What is no fixture is taken by a plain import: pytest has loaded this module, by that name, before it comes to any test.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import text

import trioroom
from tests.browser import open_chromium, renew
from tests.heap import FrozenHeap
from tests.side_by_side import own_part_first, turn, worker_count
from tests.tracing import Tracing
from trioroom._net.transport import AwaitedTransport
from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from trioroom.testing import Peer  # what it imports is to be rewritten first, see below

HERE = Path(__file__).parent

SUITES = ("conformance", "history_conformance", "presence_conformance", "histories")
for suite in SUITES:  # no test modules to pytest, but they have asserts
    pytest.register_assert_rewrite(f"trioroom.testing.{suite}")

# The machine has other work too, so that what takes long says nothing of a test.
for profile, examples in (("gate", 50), ("thorough", 1_000)):
    settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("gate")  # other examples in each run; `nox -s thorough` has the other profile


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("numprocesses"):  # else workers run the tests
        config.pluginmanager.register(Tracing(trioroom))
        config.pluginmanager.register(FrozenHeap())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Who looks for tests by their names waits for no workers either: each would have to look through all tests."""
    return 0 if config.getoption("keyword") else worker_count(config.args, os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Share among workers what each would do anew in a fresh checkout, some seconds of it.

    pytest imports the tests in an order that is the same for all, and rewrites the asserts of those that it does not
    find rewritten. So each worker imports a part of its own before. And Hypothesis keeps in files what characters there
    are, and which constants our modules have, as soon as somebody has asked for a text.
    """
    if worker := getattr(session.config, "workerinput", None):
        for path in own_part_first(sorted(HERE.rglob("test_*.py"))):
            with suppress(Exception, pytest.skip.Exception):  # pytest comes to it too, and tells
                importlib.import_module(".".join(path.relative_to(HERE.parent).with_suffix("").parts))
        if worker["workerid"] == "gw0":
            given(text())(lambda _: None)()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: turn(str(item.path.relative_to(HERE))))


@pytest.fixture(params=["trioroom.v1.json", "trioroom.v1.msgpack"])
def subprotocol(request: pytest.FixtureRequest) -> str:
    """Both encodings of protocol v1."""
    value: str = request.param
    return value


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """For `chromium`."""
    with open_chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def chromium(browser: Chrome) -> Iterator[Chrome]:
    """Chromium with one window, which knows of nothing before it."""
    yield browser
    renew(browser)  # now: a page that nobody looks at any more takes a tenth of a core as long as it is there


class Recorder(AwaitedTransport):
    """A transport that takes all at once and keeps each send apart; its peer says what the test says."""

    parked = True

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[bytes] = []
        """Each with all its frames."""
        self._said, self._heard = trio.open_memory_channel[bytes](100)

    def send_nowait(self, data: bytes) -> int:
        self.sends.append(data)
        return len(data)

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sends.append(data)

    async def _receive(self) -> bytes:
        async for data in self._heard:
            return data
        return b""

    def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def say(self, message: str | bytes) -> None:
        """A message of the peer."""
        text = isinstance(message, str)
        payload = message.encode() if isinstance(message, str) else message
        self._said.send_nowait(encode_masked(Opcode.TEXT if text else Opcode.BINARY, payload))

    def hang_up(self) -> None:
        """The peer is gone."""
        self._said.close()

    def take(self) -> list[Data]:
        """The messages sent since the last time."""
        rest = b"".join(self.sends)
        messages: list[Data] = []
        self.sends.clear()
        while frame := take_frame(rest):
            opcode, payload, rest = frame
            messages.append(payload.decode() if opcode == Opcode.TEXT else payload)
        assert rest == b"", "a torn frame"
        return messages

    def connect(
        self, nursery: trio.Nursery, server: trioroom.Server, path: str, subprotocol: str | None = None
    ) -> None:
        """Begin to be a connection, run in ``nursery``; `settle` when all that should has happened."""
        offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self._said.send_nowait(
            f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        nursery.start_soon(server._entrance.serve_transport, self)  # no public way leads to one that is no stream

    def settle(self) -> None:
        """Forget what has been sent so far: the answer to the handshake, and a hello."""
        assert self.sends[0].startswith(b"HTTP/1.1 101 ")
        self.sends.clear()


@pytest.fixture
def make_recorder() -> type[Recorder]:
    """Peers whose every send can be looked at."""
    return Recorder


# -- rooms, and how a connection to them ends ------------------------------------------------------


def app_of(room_class: type[trioroom.Room]) -> trioroom.App:
    app = trioroom.App()
    app.route("room/{name}", room_class)
    return app


async def closed_with(peer: Peer) -> tuple[int, str]:
    """Code and reason of the server's close frame; messages before it are passed over."""
    try:
        while True:
            await peer.receive()
    except trioroom.ConnectionClosed as closed:
        return closed.code, closed.reason


async def close_code(peer: Peer) -> int:
    """The code that the server closes with; messages before it are passed over."""
    return (await closed_with(peer))[0]


def logged_traceback(caplog: pytest.LogCaptureFixture, error: str) -> bool:
    """Whether ``error`` was logged once, at level ERROR, with its traceback."""
    records = [record for record in caplog.records if record.exc_info and error in caplog.handler.format(record)]
    return [record.levelname for record in records] == ["ERROR"]


# -- rooms that keep a record of coming and going --------------------------------------------------

T = TypeVar("T")


class Record(list[T]):
    """What has happened, and a way to wait for it: in some tests the kernel has a part in when."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def append(self, entry: T) -> None:
        super().append(entry)
        self._changed.set()
        self._changed = trio.Event()

    async def reaches(self, count: int) -> None:
        while len(self) < count:
            await self._changed.wait()


joins: Record[trioroom.Member] = Record()
leaves: Record[tuple[trioroom.Member, str]] = Record()


@pytest.fixture
def fresh_records() -> Iterator[None]:
    """For all that use `joins` and `leaves`."""
    yield
    joins.clear()
    leaves.clear()


def reasons() -> list[str]:
    """Why they left, after having checked that everyone who joined did so once."""
    assert Counter(member for member, _ in leaves) == Counter(joins)
    return [reason for _, reason in leaves]


class Tracked(trioroom.Room):
    """Does what its members tell it, and keeps a record of their coming and going."""

    async def on_join(self, member: trioroom.Member) -> object:
        joins.append(member)
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        match message.data:
            case "leave":
                member.leave("asked to")
            case "leave twice":
                member.leave("asked to")
                member.leave("asked again")
            case "all out":
                for each in self.members:
                    each.leave("all out")
            case "task leaves":
                member.start_soon(self.leave_from_task, member)
            case "raise":
                raise ValueError("on_message is broken")
            case "sleep":
                await trio.sleep_forever()
            case "flood":
                for _ in range(5_000):
                    member.send("x")

    async def leave_from_task(self, member: trioroom.Member) -> None:
        member.leave("its task said so")
        await trio.sleep_forever()

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        await self.on_message(member, message)
        return None

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        leaves.append((member, reason))
        await trio.lowlevel.checkpoint()
        member.leave("too late to matter")
        member.send("too late to arrive")


class JoiningFails(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        raise ValueError("on_join is broken")


class JoiningRefuses(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        raise trioroom.JoinRefused("full")


class JoiningPutsOut(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        member.leave("no, rather not")
        await trio.sleep(1)
        return "state"


HOOK_FAILED = "{} failed; the server's log tells more"
JOINING_WAYS: list[tuple[type[Tracked], tuple[int, str], str]] = [
    (JoiningFails, (1011, HOOK_FAILED.format("on_join")), "on_join is broken"),
    (JoiningRefuses, (4001, "full"), "full"),
    (JoiningPutsOut, (4002, "no, rather not"), "no, rather not"),
]
