"""The chat on two servers that a broker links: what members of one see of the other, also after it was killed."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from tests.cli.conftest import Command, open_command
from tests.demo.brokers import Broker
from trioroom import connect
from trioroom.client import ClientRoom, Event, Message
from trioroom.demo.app import Visitor

ROOM = "chat/lobby"


@asynccontextmanager
async def two_demos(broker: Broker) -> AsyncIterator[tuple[int, int]]:
    """Their ports. Ctrl-C ends both, in order."""
    demo = ("demo", "--port", "0", "--backplane", broker.url)
    async with open_command(*demo) as one, open_command(*demo) as two:
        yield await one.wait_port(), await two.wait_port()
        for command in (one, two):
            await end(command)


async def end(command: Command) -> None:
    command.process.send_signal(signal.SIGINT)
    assert await command.wait_ended() == 0, command.output
    assert "Traceback" not in command.output


class Chatter:
    """A member, and all that has come to it."""

    def __init__(self, name: str, room: ClientRoom) -> None:
        self.name, self.room = name, room
        self.events: list[Event] = []
        self._more = trio.Event()

    @property
    def said(self) -> list[tuple[str, str]]:
        """Names and texts."""
        return [(each.data["name"], each.data["text"]) for each in self.events if isinstance(each, Message)]  # type: ignore[index, call-overload]

    @property
    def present(self) -> set[str]:
        """The users that it sees."""
        return {*self.room.present}

    async def say(self, text: str) -> None:
        await self.room.publish({"name": self.name, "text": text})

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until what has come is such that ``condition`` holds."""
        while not condition():
            self._more = trio.Event()
            await self._more.wait()

    async def listen(self) -> None:
        async for event in self.room.events():
            self.events.append(event)
            self._more.set()


@asynccontextmanager
async def chatter(port: int, name: str) -> AsyncIterator[Chatter]:
    """A member of the room on the server of ``port``."""
    token = msgspec.json.encode(Visitor(user=name.lower(), name=name)).decode()
    async with connect(f"ws://127.0.0.1:{port}/", token=token) as client, trio.open_nursery() as nursery:
        async with client.join(ROOM, presence=True) as room:
            member = Chatter(name, room)
            nursery.start_soon(member.listen)
            yield member
            nursery.cancel_scope.cancel()


async def test_members_of_two_servers_see_each_other(broker: Broker) -> None:
    with trio.fail_after(60):
        async with two_demos(broker) as ports, chatter(ports[0], "Ada") as ada:
            async with chatter(ports[1], "Grace") as grace:
                for member in (ada, grace):
                    await member.wait_for(lambda member=member: member.present == {"ada", "grace"})
                await ada.say("hello over there")
                await grace.wait_for(lambda: len(grace.said) == 1)
                await grace.say("hello back")
                said = [("Ada", "hello over there"), ("Grace", "hello back")]
                for member in (ada, grace):
                    await member.wait_for(lambda member=member: len(member.said) == 2)
                    assert member.said == said
            await ada.wait_for(lambda: ada.present == {"ada"})
            async with chatter(ports[1], "Alan") as alan:
                page = await alan.room.history(10)
                assert [(kept.data["name"], kept.data["text"]) for kept in page.messages] == said  # type: ignore[index, call-overload]
                assert page.position == ada.room.position


async def test_chat_goes_on_after_the_broker_was_killed(broker: Broker) -> None:
    with trio.fail_after(90):
        async with two_demos(broker) as ports, chatter(ports[0], "Ada") as ada, chatter(ports[1], "Grace") as grace:
            await ada.say("before")
            await grace.wait_for(lambda: len(grace.said) == 1)
            broker.server.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ada.say, "meanwhile")  # the client tries until it is confirmed
                await trio.sleep(0.5)
                await broker.server.restart()
            await grace.say("after")
            for member in (ada, grace):
                await member.wait_for(lambda member=member: len(member.said) == 3)
                assert member.said == [("Ada", "before"), ("Ada", "meanwhile"), ("Grace", "after")]
                await member.wait_for(lambda member=member: member.present == {"ada", "grace"})
