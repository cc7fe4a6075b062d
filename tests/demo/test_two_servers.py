"""The chat on two servers that a broker links: what members of one see of the other, also after it was killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from tests.demo.brokers import Broker, two_demos
from trioroom import connect
from trioroom.client import ClientRoom, Event, Gap, Message
from trioroom.demo.app import Visitor

ROOM = "chat/lobby"


def words_of(data: object) -> tuple[str, str]:
    """Who has said what."""
    assert isinstance(data, dict)
    return data["name"], data["text"]


class Chatter:
    """A member, and all that has come to it."""

    def __init__(self, name: str, room: ClientRoom) -> None:
        self.name, self.room = name, room
        self.events: list[Event] = []
        self._more = trio.Event()

    @property
    def said(self) -> list[tuple[str, str]]:
        """Names and texts."""
        return [words_of(each.data) for each in self.events if isinstance(each, Message)]

    async def say(self, text: str) -> None:
        await self.room.publish({"name": self.name, "text": text})

    async def wait_said(self, count: int) -> None:
        """Until so many messages have come."""
        while len(self.said) < count:
            await self.wait_more()

    async def wait_present(self, *users: str) -> None:
        """Until it sees these and no others."""
        while {*self.room.present} != {*users}:
            await self.wait_more()

    @property
    def has_gap(self) -> bool:
        """It was told that it may have missed something."""
        return any(isinstance(each, Gap) for each in self.events)

    async def wait_more(self) -> None:
        """Until something comes."""
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
    async with connect(f"ws://127.0.0.1:{port}/", token=token) as client, client.join(ROOM, presence=True) as room:
        member = Chatter(name, room)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.listen)
            yield member
            nursery.cancel_scope.cancel()


async def test_members_of_two_servers_see_each_other(broker: Broker) -> None:
    with trio.fail_after(60):
        async with two_demos(broker) as ports, chatter(ports[0], "Ada") as ada:
            async with chatter(ports[1], "Grace") as grace:
                for member in (ada, grace):
                    await member.wait_present("ada", "grace")
                await ada.say("hello over there")
                await grace.wait_said(1)
                await grace.say("hello back")
                said = [("Ada", "hello over there"), ("Grace", "hello back")]
                for member in (ada, grace):
                    await member.wait_said(2)
                    assert member.said == said
            await ada.wait_present("ada")
            async with chatter(ports[1], "Alan") as alan:
                page = await alan.room.history(10)
                assert [words_of(kept.data) for kept in page.messages] == said
                assert ada.room.position is not None
                assert page.position.epoch == ada.room.position.epoch


async def test_chat_goes_on_after_the_broker_was_killed(broker: Broker) -> None:
    with trio.fail_after(90):
        async with two_demos(broker) as ports, chatter(ports[0], "Ada") as ada, chatter(ports[1], "Grace") as grace:
            await ada.say("before")
            for member in (ada, grace):
                await member.wait_said(1)
            broker.server.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ada.say, "meanwhile")  # the client tries until it is confirmed
                await trio.sleep(0.5)
                await broker.server.restart()
            for member in (ada, grace):
                while not (broker.keeps or member.has_gap):  # which everybody is told, as the broker has forgotten all
                    await member.wait_more()
            await grace.say("after")
            said = [("Ada", "before"), ("Ada", "meanwhile"), ("Grace", "after")]
            for member in (ada, grace):
                while said[-1] not in member.said:
                    await member.wait_more()
                # Only what came before the gap was told may be what it stands for.
                assert member.said == said or (member.has_gap and not broker.keeps and member.said == said[::2])
                await member.wait_present("ada", "grace")
