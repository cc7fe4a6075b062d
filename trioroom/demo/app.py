"""A chat room and its page. What members get is one of three objects, told apart by ``kind``:

``{"kind":"message","name":..,"text":..}``, ``{"kind":"members","node":..,"count":..}``, ``{"kind":"error","text":..}``.

With a backplane the room is one on several nodes, and each of them counts its own members only. So a node tells its
count when someone joins or leaves and every `INTERVAL` seconds besides; how many are here is the sum of what the nodes
said last, without those that fell silent. A joiner gets the count of its own node as its state, before all else.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import trio

import trioroom

INTERVAL = 5.0
"""Seconds between two counts of a node. The page, chat.js, forgets one that missed three."""
MAX_NAME = 40
MAX_TEXT = 2_000
NODE = secrets.token_hex(4)
"""The id of this node; a process that is started anew is another one."""
PAGE = Path(__file__).parent / "page"


class Post(msgspec.Struct, frozen=True):
    """What a page sends. Lengths are in characters, the name's without the blanks around it."""

    name: str
    text: str

    def __post_init__(self) -> None:
        for field, value, limit in (("name", self.name.strip(), MAX_NAME), ("text", self.text, MAX_TEXT)):
            if not 1 <= len(value) <= limit:
                raise ValueError(f"{field} has {len(value)} characters; send 1 to {limit}")


class Chat(trioroom.Room):
    """Everybody sees what anybody says, and how many are here."""

    async def on_open(self) -> None:
        """Begin to repeat the count for nodes that have heard none, or missed one."""
        self.nursery.start_soon(self.repeat_count)

    async def on_join(self, member: trioroom.Member) -> object:
        """Tell the others how many are on this node now, and the joiner too, as its state."""
        await self.publish_count(exclude=member)
        return self.count()

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Publish an object with name and text, or text alone under a guest's name, to everybody."""
        try:
            post = read_post(member.id, message.data)
        except msgspec.ValidationError as exc:
            member.send({"kind": "error", "text": str(exc)})
            return
        said = {"kind": "message", "name": post.name.strip(), "text": post.text}
        await self.publish(said, sender=member)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        """Tell those who stay, here and on other nodes, how many are left on this one."""
        await self.publish_count()

    def count(self) -> dict[str, str | int]:
        """What this node says of its members."""
        return {"kind": "members", "node": NODE, "count": len(self.members)}

    async def publish_count(self, *, exclude: trioroom.Member | None = None) -> None:
        """Say it to everybody on every node."""
        await self.publish(self.count(), exclude=exclude)

    async def repeat_count(self) -> None:
        """A task of the room, from its first member here to its last."""
        while True:
            await trio.sleep(INTERVAL)
            try:
                await self.publish_count()
            except trioroom.BackplaneUnavailable:
                # The room would fail with its task, and put out members who can wait for the broker to come back.
                # Nor is anything missed: the next count says what this one would have.
                pass


def read_post(member_id: str, data: object) -> Post:
    """The post that ``data`` is.

    Raises:
        msgspec.ValidationError: it is none; says what is wrong and what to send.
    """
    if isinstance(data, str):  # verbatim, also when it happens to look like JSON
        data = {"name": f"guest-{member_id[:4]}", "text": data}
    if not isinstance(data, dict):
        raise msgspec.ValidationError(
            'neither text nor an object; send text, or {"name": "...", "text": "..."} with trioroom.v1.json'
        )
    try:
        return msgspec.convert(data, Post)
    except msgspec.ValidationError as exc:
        raise msgspec.ValidationError(f"{exc}; an object has name and text, both strings") from exc


app = trioroom.App()
app.route("chat/{name}", Chat)
app.static("/", PAGE)
