"""A real server says what the transcripts have it say, in both encodings."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.transcripts.player import Transcript, Values, as_list, load, to_msgpack
from tests.transcripts.rooms import Stage
from trioroom.backplane.memory import MemoryBackplane
from trioroom.errors import ConnectionClosed
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

# The heartbeat is as in the transcripts' hello, but patient: peers answer while they are read from.
SETTINGS = trioroom.Settings(ping_timeout=24.0, close_timeout=1.0, leave_timeout=1.0, drain_timeout=2.0)
PATIENCE = 30.0  # seconds on a mock clock until what should come does not
TRANSCRIPTS = [transcript for transcript in load() if not transcript.clients_only]


class Performance:
    """One transcript with one server after another; its tasks run in ``nursery``."""

    def __init__(self, transcript: Transcript, subprotocol: str, nursery: trio.Nursery) -> None:
        self._settings = attrs.evolve(SETTINGS, **transcript.settings)
        self._subprotocol = subprotocol
        self._nursery = nursery
        self._values = Values()
        self._backplane = MemoryBackplane()
        self._authenticates = transcript.authenticates
        self._stage = Stage(transcript.authenticates)
        self._server: trioroom.Server | None = None
        self._stop = trio.Event()
        self._peer: V1Peer | None = None
        self._cut = trio.Event()
        self._others: dict[str, tuple[V1Peer, trio.Event]] = {}

    async def play(self, step: dict[str, Any]) -> None:
        """Do one step, or see that the server does."""
        ((kind, value),) = step.items()
        match kind:
            case "connect":
                await self._connect()
            case "client":
                await self._send(value)
            case "server":
                for envelope in as_list(value):
                    await self._expect(envelope)
            case "close":
                await self._lose(value)
            case "hang_up":
                await self._hang_up(value["code"])
            case "meanwhile":
                arguments = self._values.fill(value)
                await getattr(self, f"_{arguments.pop('call')}")(**arguments)
                await wait_all_tasks_blocked()

    # -- the client's part ---------------------------------------------------------------------

    async def _connect(self) -> None:
        if self._server is None:
            self._server = await self._nursery.start(self._serve)
        self._cut = trio.Event()
        self._peer = await self._nursery.start(self._be_connected, self._server, self._cut)

    async def _be_connected(
        self, server: trioroom.Server, cut: trio.Event, *, task_status: trio.TaskStatus[V1Peer]
    ) -> None:
        async with open_peer(server, "/", subprotocol=self._subprotocol) as peer:
            task_status.started(V1Peer(peer, self._subprotocol))
            await cut.wait()

    async def _send(self, envelopes: Any) -> None:
        assert self._peer is not None
        filled = self._values.fill(envelopes)
        await self._peer.send(*as_list(to_msgpack(filled) if self._is_msgpack else filled))

    async def _expect(self, envelope: dict[str, Any]) -> None:
        assert self._peer is not None
        with trio.fail_after(PATIENCE):
            received = await self._peer.receive()
        expected = to_msgpack(envelope) if self._is_msgpack else envelope
        assert self._values.matches(expected, received), f"{received} instead of {expected}"

    async def _lose(self, close: dict[str, Any] | None) -> None:
        assert self._peer is not None
        if close is not None:
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as closed:
                raise AssertionError(await self._peer.receive())
            assert self._values.matches(close, {"code": int(closed.value.code), "reason": closed.value.reason})
        self._drop()
        await wait_all_tasks_blocked()

    async def _hang_up(self, code: int) -> None:
        assert self._peer is not None
        await self._peer.peer.close(code)
        await self._lose({"code": code, "reason": ""})

    def _drop(self) -> None:
        self._cut.set()
        self._peer = None

    @property
    def _is_msgpack(self) -> bool:
        return self._subprotocol.endswith("msgpack")

    async def finish(self) -> None:
        """Nothing is left over: the server has said no more than the transcript has."""
        if self._peer is None:
            return
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            raise AssertionError(f"and then came {await self._peer.receive()}")

    # -- meanwhile -----------------------------------------------------------------------------

    async def _serve(self, *, task_status: trio.TaskStatus[trioroom.Server]) -> None:
        stop = self._stop = trio.Event()
        async with open_test_server(self._stage.app, self._settings, backplane=self._backplane) as server:
            task_status.started(server)
            await stop.wait()

    async def _drain(self) -> None:
        self._stop.set()
        self._server = None
        self._stage = Stage(self._authenticates)  # the next server's; the old one has not ended

    async def _publish(self, room: str, data: Any) -> None:
        await self._stage.app.publish(room, data)

    async def _enter(self, who: str, room: str) -> None:
        assert self._server is not None
        gone = trio.Event()
        v1 = await self._nursery.start(self._be_another, self._server, gone)
        self._others[who] = v1, gone
        await v1.request("auth", token=who)
        await v1.join(room)

    async def _be_another(
        self, server: trioroom.Server, gone: trio.Event, *, task_status: trio.TaskStatus[V1Peer]
    ) -> None:
        async with open_v1_peer(server) as v1:
            task_status.started(v1)
            await gone.wait()

    async def _say(self, who: str, room: str, data: Any) -> None:
        v1, _ = self._others[who]
        assert (await v1.request("publish", room=room, data=data))["type"] == "ok"

    async def _leave(self, who: str) -> None:
        self._others.pop(who)[1].set()

    async def _put_out(self, room: str, reason: str) -> None:
        self._stage.put_out(room, reason)

    async def _forget(self) -> None:
        """The broker has lost everything: there is another server, on another backplane."""
        self._backplane = MemoryBackplane()
        await self._drain()

    async def _wait(self, seconds: float) -> None:
        await trio.sleep(seconds)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
async def test_server_keeps_to_the_transcript(
    transcript: Transcript, subprotocol: str, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        performance = Performance(transcript, subprotocol, nursery)
        for number, step in enumerate(transcript.steps):
            try:
                await performance.play(step)
            except Exception as error:
                error.add_note(f"in step {number}: {step}")
                raise
        await performance.finish()
        nursery.cancel_scope.cancel()
