"""One server asks all that the backplane links, itself included, and awaits their answers.

The way is the backplane's own: rooms whose names have a character that does not print, so that no peer can join and
nobody can publish to them. What is only asked goes past a server that is out of touch, whose silence is told. An order
is kept in a history, which such a server reads when it is back; that of a revocation must not depend on luck.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.causes import first_of
from trioroom._core.history import History, Kept
from trioroom._core.info import NOTHING
from trioroom._net.healing import HealingChannel, Turn
from trioroom._net.nodes import Nodes
from trioroom._wire.control import Answered, Asked, Command, Order, Result, decode_control, encode_control
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneError, BackplaneUnavailable

if TYPE_CHECKING:
    from trioroom._core.budget import Budget
    from trioroom.backplane.base import Backplane

log = logging.getLogger("trioroom.control")
_ORDERS = "\0orders"
_QUESTIONS = "\0questions"
_KEPT = History(1_000, ttl=300.0)  # orders: a server that is away for longer has lost its peers too
_CHANNEL_SIZE = 1_024  # as many as a room's; a message is some 100 bytes
_CHANNEL_BYTES = 4 << 20  # sixteen answers with 1,000 rooms of the longest names
_ROW_INTERVAL = 1.0  # seconds
_RETRY_INTERVAL = 1.0  # seconds between two attempts to subscribe, beside what the backplane itself waits


@attrs.frozen
class Answers:
    """What came back."""

    results: tuple[Result, ...]
    """Our own first."""
    silent: int
    """Servers that are there and did not answer in time."""


@attrs.define
class _Pending:
    """What has been asked and not been answered by all."""

    waiting_for: set[str]
    knows_all: bool
    """Whether nobody else may answer."""
    results: dict[str, Result] = attrs.field(factory=dict)  # by node
    complete: trio.Event = attrs.field(factory=trio.Event)
    is_out: bool = False

    def strike(self, node: str) -> None:
        """There is nothing to wait for from ``node`` any more."""
        self.waiting_for.discard(node)
        if self.knows_all and not self.waiting_for:
            self.complete.set()


class Control:
    """One per server, whose nursery runs it.

    Args:
        link: what there is between servers; None where there is just this one.
        carry_out: does on this server what any asks, and does not raise for what others may say.
    """

    def __init__(
        self, link: Backplane | None, budget: Budget, carry_out: Callable[[Command], Awaitable[Result]]
    ) -> None:
        self.node = secrets.token_hex(8)
        """This server's id, another one each time it starts."""
        self.unreadable = 0
        """Messages that came from somewhere and made no sense."""
        self._link = link
        self._budget = budget
        self._carry_out = carry_out
        self._numbers = count(1)
        self._pending: dict[int, _Pending] = {}
        self._nodes = Nodes(self._node_gone)
        self._listens = False
        self._deaf_since = trio.current_time()  # while it does not listen

    @property
    def others(self) -> set[str]:
        """The ids of other servers that are there."""
        return self._nodes.ids

    # -- asking ----------------------------------------------------------------------------------

    async def ask(self, command: Command, timeout: float) -> Answers:
        """Have all servers carry out ``command``, this one first, and wait ``timeout`` seconds for the others at most.

        Cancelled, or after an error, it may have been carried out anywhere or nowhere else.

        Raises:
            BackplaneUnavailable: it has been carried out here; the broker cannot be reached, or could not be yet.
        """
        own = await self._carry_out(command)
        if self._link is None:
            return Answers((own,), 0)
        number = next(self._numbers)
        pending = self._pending[number] = _Pending(self._nodes.ids, self._link.presence is not None)
        try:
            with trio.move_on_after(timeout):
                await self._publish(command, encode_control(Asked(self.node, number, command)))
                pending.is_out = True
                if pending.waiting_for or not pending.knows_all:
                    await pending.complete.wait()
        finally:
            del self._pending[number]
        if not pending.is_out:
            raise BackplaneUnavailable(f"other servers could not be asked within {timeout:g} s; retry later")
        if not self._listens:
            raise BackplaneUnavailable("other servers were asked and are not heard yet; what they did cannot be told")
        return Answers((own, *pending.results.values()), len(pending.waiting_for))

    async def _publish(self, command: Command, payload: bytes) -> None:
        assert self._link is not None
        if isinstance(command, Order) and self._link.history is not None:
            await self._link.history.publish(_ORDERS, payload, _KEPT)
        else:
            await self._link.publish(_ORDERS if isinstance(command, Order) else _QUESTIONS, payload)

    def _node_gone(self, node: str) -> None:
        for pending in self._pending.values():
            pending.strike(node)

    # -- hearing ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; has started when it listens, or has found that it cannot yet."""
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                task_status.started()

        while self._link is not None:
            try:
                async with AsyncExitStack() as stack:
                    sources = await self._open(self._link, stack)
                    self._listens = True
                    start()
                    await self._listen(*sources)
            except* BackplaneError as error:
                log.warning("other servers are not heard, trying again: %s", first_of(error))
            if self._listens:
                self._listens, self._deaf_since = False, trio.current_time()
            start()
            await trio.sleep(_RETRY_INTERVAL)
        await trio.lowlevel.checkpoint()
        start()

    async def _open(
        self, link: Backplane, stack: AsyncExitStack
    ) -> tuple[HealingChannel | RoomChannel, RoomChannel, RoomChannel]:
        orders, questions, answers = (
            stack.enter_context(RoomChannel(_CHANNEL_SIZE, _CHANNEL_BYTES, self._budget)) for _ in range(3)
        )
        source: HealingChannel | RoomChannel = orders
        if link.history is None:
            await stack.enter_async_context(link.subscribe(_ORDERS, orders))
        else:
            await stack.enter_async_context(link.history.subscribe(_ORDERS, orders))
            source = HealingChannel(link.history, _ORDERS, _KEPT, orders)
            await source.begin(max_age=trio.current_time() - self._deaf_since)
        await stack.enter_async_context(link.subscribe(_QUESTIONS, questions))
        await stack.enter_async_context(link.subscribe(_inbox_of(self.node), answers))
        if link.presence is not None:  # last: who sees us may count on an answer
            seat = await stack.enter_async_context(link.presence.open(_QUESTIONS, self._nodes, _ROW_INTERVAL))
            seat.put(self.node, NOTHING)
        return source, questions, answers

    async def _listen(self, orders: HealingChannel | RoomChannel, questions: RoomChannel, answers: RoomChannel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, orders, True)
            nursery.start_soon(self._follow, questions, False)  # who asked is told of our silence
            nursery.start_soon(self._collect, answers)

    async def _follow(self, source: HealingChannel | RoomChannel, loss_matters: bool) -> None:
        while True:
            delivery = await source.receive()
            if isinstance(delivery, Lost) or (isinstance(delivery, Turn) and delivery.lost is not None):
                if loss_matters:
                    log.warning("an order of another server is lost: this one may have kept whom it was to put out")
            elif (message := self._read(delivery)) is not None and isinstance(message, Asked):
                await self._serve(message)

    async def _serve(self, asked: Asked) -> None:
        if asked.node == self.node:
            return  # done before it went out
        assert self._link is not None
        try:
            result = await self._carry_out(asked.command)
            await self._link.publish(_inbox_of(asked.node), encode_control(Answered(self.node, asked.number, result)))
        except BackplaneError as exc:
            log.debug("an answer to node %s did not go out: %s", asked.node, exc)
        except Exception:  # a fault of our own: it must not end the server
            log.exception("%r of node %s failed; please report this", asked.command, asked.node)

    async def _collect(self, channel: RoomChannel) -> None:
        while True:
            message = self._read(await channel.receive())
            if isinstance(message, Answered) and (pending := self._pending.get(message.number)) is not None:
                pending.results[message.node] = message.result
                pending.strike(message.node)

    def _read(self, delivery: Delivery | Turn) -> Asked | Answered | None:
        payload = delivery.payload if isinstance(delivery, Kept) else delivery
        if not isinstance(payload, bytes):
            return None
        try:
            return decode_control(payload)
        except ValueError as exc:
            self.unreadable += 1
            level = logging.WARNING if self.unreadable == 1 else logging.DEBUG  # it may be a flood
            log.log(level, "dropped %d bytes that are no message of another server: %s", len(payload), exc)
            return None


def _inbox_of(node: str) -> str:
    return f"\0answers {node}"
