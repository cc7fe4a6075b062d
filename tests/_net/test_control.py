"""What one server asks of all: who hears it, who answers, and what happens to what makes no sense."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._core.budget import Budget
from trioroom._net.control import _CHANNEL_SIZE, _ORDERS, _QUESTIONS, Control, _inbox_of
from trioroom._wire.control import (
    Asked,
    Command,
    CountMembers,
    Disconnect,
    Done,
    FindRooms,
    Kick,
    Result,
    encode_control,
)
from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import cancel_at_step, open_test_server

ORDER = Disconnect(4005, "out", user="ann")
QUESTION = CountMembers("room/a")


class Node:
    """A control and what it was told to do; each command is answered with ``count``."""

    def __init__(self, link: Backplane | None, count: int = 1) -> None:
        self.count = count
        self.commands: list[Command] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.control = Control(link, Budget(1 << 20), self._carry_out)

    async def _carry_out(self, command: Command) -> Result:
        self.commands.append(command)
        await self.may_answer.wait()
        return Done(self.count)

    async def ask(self, command: Command, timeout: float = 3.0) -> tuple[list[int], int]:
        """The counts, the others' in order, and how many were silent."""
        answers = await self.control.ask(command, timeout)
        own, *others = [result.count for result in answers.results if isinstance(result, Done)]
        return [own, *sorted(others)], answers.silent


OpenNodes = Callable[..., AbstractAsyncContextManager[Sequence[Node]]]


@asynccontextmanager
async def open_nodes(*counts: int, link: Backplane | None = None) -> AsyncIterator[Sequence[Node]]:
    link = link or MemoryBackplane()
    nodes = [Node(link, count) for count in counts]
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(running(node))
        yield nodes


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[trio.CancelScope]:
    async with trio.open_nursery() as nursery:
        await nursery.start(node.control.run)
        yield nursery.cancel_scope
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("command", [ORDER, Kick("room/a", "ann", "out"), FindRooms("", "", 5), QUESTION])
async def test_all_do_it_and_all_answer(command: Command, autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10, 100) as nodes:
        assert await nodes[1].ask(command) == ([10, 1, 100], 0)
        assert await nodes[0].ask(command) == ([1, 10, 100], 0)
        assert [node.commands for node in nodes] == [[command, command]] * 3
        assert trio.current_time() == 0, "nobody waits for the timeout"


async def test_server_without_links_asks_itself(autojump_clock: MockClock) -> None:
    node = Node(None)
    async with running(node):
        assert await node.ask(ORDER) == ([1], 0)


async def test_who_does_not_answer_in_time_is_told(autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10, 100) as nodes:
        nodes[1].may_answer = trio.Event()
        assert await nodes[0].ask(ORDER) == ([1, 100], 1)
        assert trio.current_time() == pytest.approx(3.0)
        nodes[1].may_answer.set()  # its answer comes late, to nobody
        await wait_all_tasks_blocked()
        assert await nodes[0].ask(QUESTION) == ([1, 10, 100], 0)


async def test_who_stops_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10) as nodes:
        leaving = Node(nodes[0].control._link, 100)
        leaving.may_answer = trio.Event()
        async with running(leaving) as scope, trio.open_nursery() as nursery:
            answers: list[tuple[list[int], int]] = []

            async def ask() -> None:
                answers.append(await nodes[0].ask(ORDER))

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            assert answers == [([1, 10], 0)]
        assert await nodes[0].ask(ORDER) == ([1, 10], 0)
    assert trio.current_time() == 0


async def test_many_questions_at_once_get_their_own_answers(autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10, 100) as nodes, trio.open_nursery() as nursery:
        answers: list[tuple[list[int], int]] = []

        async def ask(node: Node) -> None:
            answers.append(await node.ask(ORDER))

        for _ in range(50):
            for node in nodes:
                nursery.start_soon(ask, node)
        await trio.sleep(1)
        assert sorted(answers) == sorted(50 * [([1, 10, 100], 0), ([10, 1, 100], 0), ([100, 1, 10], 0)])
        assert not nodes[0].control._pending


async def test_order_reaches_who_was_cut_off_and_a_question_does_not(autojump_clock: MockClock) -> None:
    """As many questions and orders as overflow a channel: orders are read from the history."""
    async with open_nodes(1, 10) as (here, there):
        there.may_answer = trio.Event()  # so it takes nothing from its channels
        for number in range(2 * _CHANNEL_SIZE):
            with suppress(trioroom.BackplaneUnavailable):  # once the channel is full
                await here.control.ask(Disconnect(4005, "out", user=f"u{number}"), 0.1)
        there.may_answer.set()
        await trio.sleep(1)
        await here.ask(QUESTION)
        await here.ask(Disconnect(4005, "out", user="last"))
        await trio.sleep(1)
        users = [command.user for command in there.commands if isinstance(command, Disconnect)]
        ordered = [*(f"u{number}" for number in range(2 * _CHANNEL_SIZE)), "last"]
        assert users[-1_000:] == ordered[-1_000:], "as many as are kept"


class Forgetful(MemoryBackplane):
    """Keeps nothing, and knows nobody."""

    @property
    def history(self) -> None:
        return None

    @property
    def presence(self) -> None:  # type: ignore[override]  # likewise
        return None


async def test_backplane_that_keeps_nothing_and_knows_nobody_is_served_as_far_as_it_goes(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes(1, 10, link=Forgetful()) as (here, there):
        assert await here.ask(ORDER) == ([1, 10], 0)
        assert await there.ask(QUESTION) == ([10, 1], 0)
        assert trio.current_time() == pytest.approx(6.0), "there may be others"


class Failing(MemoryBackplane):
    def __init__(self) -> None:
        super().__init__()
        self.is_up = True

    @asynccontextmanager
    async def subscribe(self, room: str, channel: object) -> AsyncIterator[None]:
        if not self.is_up:
            raise trioroom.BackplaneUnavailable("the broker is down")
        async with super().subscribe(room, channel):  # type: ignore[arg-type]
            yield


async def test_server_that_cannot_listen_says_so_and_tries_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    link = Failing()
    async with open_nodes(1, link=link) as (here,):
        link.is_up = False
        late = Node(link, 10)
        async with running(late):
            assert "not heard, trying again: the broker is down" in caplog.text
            with pytest.raises(trioroom.BackplaneUnavailable, match="what they did cannot be told"):
                await late.ask(ORDER)
            await wait_all_tasks_blocked()
            assert late.commands == [ORDER], "here it has been done"
            assert here.commands == [ORDER], "and it went out"
            assert await here.ask(ORDER) == ([1], 0)
            link.is_up = True
            await trio.sleep(2)
            assert await late.ask(ORDER) == ([10, 1], 0)


async def test_server_that_began_without_the_broker_does_what_was_ordered_meanwhile(autojump_clock: MockClock) -> None:
    """And nothing of what was ordered before it was there: those peers are not its own."""
    link = Failing()
    async with open_nodes(1, link=link) as (here,):
        for number in range(300):
            await here.ask(Disconnect(4005, "out", user=f"before {number}"))
        await trio.sleep(5)
        link.is_up = False
        late = Node(link, 10)
        async with running(late):
            meanwhile = [Disconnect(4005, "out", user=f"meanwhile {number}") for number in range(300)]
            for order in meanwhile:
                await here.ask(order)
            await trio.sleep(60)
            assert not late.commands
            link.is_up = True
            await trio.sleep(2)
            assert late.commands == meanwhile
            assert await here.ask(ORDER) == ([1, 10], 0)
            assert late.commands == [*meanwhile, ORDER]


async def test_server_that_begins_does_nothing_that_was_ordered_before(autojump_clock: MockClock) -> None:
    async with open_nodes(1) as (here,):
        await here.ask(ORDER)
        await trio.sleep(0.001)
        late = Node(here.control._link, 10)
        async with running(late):
            await wait_all_tasks_blocked()
            assert not late.commands


async def test_loss_is_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    link = Forgetful()
    async with open_nodes(1, 10, link=link) as (here, there):
        there.may_answer = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.control.ask, ORDER, 1.0)
            await wait_all_tasks_blocked()
            with trio.move_on_after(0.5):  # the second fills the channel, the publisher of the last one gives up
                for number in range(_CHANNEL_SIZE + 2):
                    await link.publish(_ORDERS, encode_control(Asked("somebody", number, ORDER)))
        there.may_answer.set()
        await link.publish(_ORDERS, encode_control(Asked("somebody", 0, ORDER)))
        await trio.sleep(1)
    assert "an order of another server is lost" in caplog.text


async def test_question_that_is_lost_is_no_reason_to_warn(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asked knows that there was no answer; after an outage of the broker it is lost on all servers."""
    async with open_nodes(1, 10) as (here, there):
        there.may_answer = trio.Event()
        link = here.control._link
        assert link is not None
        with trio.move_on_after(0.5):
            for number in range(_CHANNEL_SIZE + 2):
                await link.publish(_QUESTIONS, encode_control(Asked("somebody", number, QUESTION)))
        there.may_answer.set()
        await trio.sleep(1)
        assert await here.ask(QUESTION) == ([1, 10], 0)
    assert not caplog.records


async def test_fault_of_ours_does_not_end_the_server(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nodes(1, 10) as (here, there):

        async def fail(command: Command) -> Result:
            raise RuntimeError("a fault of ours")

        there.control._carry_out = fail
        assert await here.ask(ORDER) == ([1], 1)
        assert "a fault of ours" in caplog.text


async def test_asking_can_be_cancelled_at_any_moment(autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10) as (here, _):
        for step in range(100):
            with cancel_at_step(step) as scope:
                await here.ask(ORDER)
            assert not here.control._pending
            if not scope.cancelled_caught:
                break
        assert step > 2
        assert await here.ask(ORDER) == ([1, 10], 0)


# -- the rooms that it goes through ------------------------------------------------------------------


async def test_nobody_joins_or_publishes_to_the_rooms_of_servers(autojump_clock: MockClock) -> None:
    app = trioroom.App()
    app.route("{anything}", trioroom.Room)
    async with open_test_server(app, backplane=MemoryBackplane()) as server:
        assert app._operator is not None
        for name in (_ORDERS, _QUESTIONS, _inbox_of(app._operator.control.node)):
            assert not server._hub.knows(name)
            with pytest.raises(ValueError, match="does not print"):
                await app.publish(name, "hello")
