"""The client says and tells what the transcripts have it say and tell, in both encodings."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.client.conftest import Codec, Peer, Script, open_script, wait_closed
from tests.transcripts.player import Transcript, Values, as_list, load, to_msgpack, tokens_of
from trioroom._core.history import Position
from trioroom.client import Client, ClientRoom, Event, Gap, Message, PresenceDiff, Rejoined
from trioroom.errors import TrioroomError
from trioroom.room import HistoryPage, PresencePage, PresentUser

PATIENCE = 30.0  # seconds on a mock clock until what should come does not: a client pings after 25
SILENCE = 0.01  # seconds in which nothing more comes; a client that waits before it does something waits longer
TRANSCRIPTS = [transcript for transcript in load() if not transcript.server_only]


class Application:
    """Uses a client as a transcript says, and keeps what it is told until somebody looks."""

    def __init__(self, client: Client, values: Values, kinds: set[str], nursery: trio.Nursery) -> None:
        self._client = client
        self._values = values
        self._kinds = kinds
        self._nursery = nursery
        self._rooms: dict[str, ClientRoom] = {}
        self._tasks: dict[str, trio.CancelScope] = {}  # by the room that one is in, or by the ``as`` of what is asked
        self.told: defaultdict[str | None, deque[dict[str, Any]]] = defaultdict(deque)
        """Events in their order, by where they come from: a room, a question, or (None) the client itself."""
        nursery.start_soon(self._watch)

    def do(self, call: str, room: str | None = None, **options: Any) -> None:
        """What a ``do`` says; tasks are for what takes time."""
        filled: dict[str, Any] = self._values.fill(options)
        name = filled.pop("as", None)
        match call, room:
            case "join", str():
                self._nursery.start_soon(self._be_in, room, filled)
            case "leave", str():
                self._tasks.pop(room).cancel()
            case "cancel", _:
                self._tasks.pop(name).cancel()
            case "close", _:
                self._nursery.start_soon(self._client.aclose)
            case _, str():
                for key, value in filled.items():
                    if key != "data" and isinstance(value, dict):
                        filled[key] = Position(**value)
                self._nursery.start_soon(self._ask, name, getattr(self._rooms[room], call), filled)

    def lists(self, room: str) -> tuple[dict[str, object], int]:
        """Who is present, and how many are."""
        return dict(self._rooms[room].present), self._rooms[room].present_count

    async def _be_in(self, name: str, options: dict[str, Any]) -> None:
        with trio.CancelScope() as self._tasks[name]:
            try:
                async with self._client.join(name, **options) as room:
                    self._rooms[name] = room
                    self._tell("joined", name, room=name, state=room.state, position=room.position)
                    await self._listen(name, room)
            except TrioroomError as error:
                self._tell("end", name, room=name, error=error)

    async def _listen(self, name: str, room: ClientRoom) -> None:
        try:
            async for event in room.events():
                self._tell_event(name, event)
        except TrioroomError as error:
            self._tell("end", name, room=name, error=error)
        await trio.sleep_forever()  # who stays in a room that has ended does not have it joined again

    async def _ask(self, name: str | None, question: Any, options: dict[str, Any]) -> None:
        with trio.CancelScope() as scope:
            if name is not None:
                self._tasks[name] = scope
            try:
                self._tell("answer", name, to=name, value=await question(**options))
            except TrioroomError as error:
                self._tell("failed", name, to=name, error=error)

    async def _watch(self) -> None:
        async for state in self._client.states():
            if state.name == "closed":
                self._tell("closed", None, error=state.error)

    def _tell_event(self, room: str, event: Event) -> None:
        match event:
            case Message(data, sender, position):
                self._tell("message", room, room=room, data=data, position=position, **{"from": sender})
            case Gap(reason, lost, position):
                self._tell("gap", room, room=room, reason=reason, lost=lost, position=position)
            case PresenceDiff(joined, left, count):
                self._tell("presence", room, room=room, joined=joined, left=left, count=count)
            case Rejoined(recovered, state):
                self._tell("rejoined", room, room=room, recovered=recovered, state=state)

    def _tell(self, kind: str, source: str | None, **fields: object) -> None:
        if kind in self._kinds and fields.get("to", ...) is not None:
            self.told[source].append({"event": kind, **{key: _plain(value) for key, value in fields.items()}})


def _plain(value: Any) -> Any:
    """As a transcript writes it."""
    match value:
        case Exception():
            fields = {name: getattr(value, name, None) for name in ("code", "reason", "retry", "after")}
            return {"name": type(value).__name__, **fields}
        case tuple():
            return [_plain(item) for item in value]
        case HistoryPage(messages, position, more):
            kept = [{"offset": each.offset, "data": each.data, "from": each.sender} for each in messages]
            return {"messages": kept, "position": _plain(position), "more": more}
        case PresencePage():
            return {**attrs.asdict(value), "members": _plain(value.members)}
        case PresentUser():
            return attrs.asdict(value)
        case Position():
            return msgspec.structs.asdict(value)
    return value


class Performance:
    """One transcript, of which we play the server's part."""

    def __init__(self, script: Script, application: Application, values: Values, *, in_msgpack: bool, apart: bool):
        self._script = script
        self._application = application
        self._values = values
        self._in_msgpack = in_msgpack
        self._apart = apart  # arrays are said as so many frames
        self._peer: Peer | None = None
        self._comes_after: tuple[float, float] | None = None
        self._lost_at = 0.0

    async def play(self, step: dict[str, Any]) -> None:
        """Do one step, or see that the client does."""
        ((kind, value),) = step.items()
        match kind:
            case "connect":
                await self._connect()
            case "client":
                await self._expect(value)
            case "server":
                await self._say(value)
            case "close":
                await self._close(value)
            case "hang_up":
                await self._see_hang_up(value["code"])
            case "after":
                self._comes_after = value
            case "do":
                self._application.do(**value)
            case "event":
                self._see_told(value)
            case "present":
                self._see_present(**value)
        await wait_all_tasks_blocked()

    async def finish(self) -> None:
        """Nothing is left over: the client has neither said nor told more than the transcript has."""
        await self._hear_nothing()
        assert not any(self._application.told.values()), f"told too: {self._application.told}"

    # -- the server's part --------------------------------------------------------------------------

    @property
    def _connected(self) -> Peer:
        assert self._peer is not None
        return self._peer

    async def _connect(self) -> None:
        with trio.fail_after(PATIENCE):
            self._peer = await self._script.accept(hello=False)
        if self._comes_after is not None:
            least, most = self._comes_after
            assert least <= trio.current_time() - self._lost_at <= most, "it came too soon or too late"

    async def _say(self, envelopes: Any) -> None:
        filled = self._values.fill(envelopes)
        said = to_msgpack(filled) if self._in_msgpack else filled
        if self._apart:
            for envelope in as_list(said):
                await self._connected.say(envelope)
        else:
            await self._connected.say(*as_list(said))

    async def _expect(self, envelopes: Any) -> None:
        with trio.fail_after(PATIENCE):
            heard = await self._connected.hear()
        expected = to_msgpack(envelopes) if self._in_msgpack else envelopes
        assert self._values.matches(expected, heard), f"{heard} instead of {expected}"

    async def _hear_nothing(self) -> None:
        if self._peer is not None:
            with trio.move_on_after(SILENCE):
                raise AssertionError(f"and then came {await self._peer.hear()}")

    async def _close(self, close: dict[str, Any] | None) -> None:
        await self._hear_nothing()
        if close is None:
            await self._connected.cut()
        else:
            await self._connected.close(**self._values.fill(close))
        self._peer = None
        self._lost_at = trio.current_time()

    async def _see_hang_up(self, code: int) -> None:
        with trio.fail_after(PATIENCE):
            assert await wait_closed(self._connected) == code
        self._peer = None

    # -- what the application sees ------------------------------------------------------------------

    def _see_told(self, expected: dict[str, Any]) -> None:
        told = self._application.told[expected.get("room", expected.get("to"))]
        assert told, "it was not told"
        event = told.popleft()
        assert self._values.matches(expected, event, partly=True), f"{event} instead of {expected}"

    def _see_present(self, room: str, count: int, users: dict[str, object] | None = None) -> None:
        assert self._application.lists(room) == (users or {}, count)


@pytest.mark.parametrize(("chance", "apart"), [(0.0, True), (1.0, False)], ids=["soonest", "latest"])
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
async def test_client_keeps_to_the_transcript(
    transcript: Transcript,
    codec: Codec,
    chance: float,
    apart: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: chance)  # so that waits are at their bounds
    values, tokens = Values(), tokens_of(transcript)
    kinds = {step["event"]["event"] for step in transcript.steps if "event" in step}
    async with open_script() as (script, line), line.open_client(token=lambda: next(tokens), codec=codec) as client:
        async with trio.open_nursery() as nursery:
            application = Application(client, values, kinds, nursery)
            performance = Performance(script, application, values, in_msgpack=codec == "msgpack", apart=apart)
            for number, step in enumerate(transcript.steps):
                try:
                    await performance.play(step)
                except Exception as error:
                    error.add_note(f"in step {number}: {step}")
                    raise
            await performance.finish()
            nursery.cancel_scope.cancel()
