"""A chat room and its page. What members get is one of three objects, told apart by ``kind``:

``{"kind":"message","name":..,"text":..}``, ``{"kind":"members","count":..}``, ``{"kind":"error","text":..}``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import trioroom

MAX_NAME = 40
MAX_TEXT = 2_000
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

    async def on_join(self, member: trioroom.Member) -> object:
        """Tell the others how many are here now, and the joiner too, as its state."""
        count = len(self.members)
        await self.publish({"kind": "members", "count": count}, exclude=member)
        return {"count": count}

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
        """Tell those who stay how many they are."""
        await self.publish({"kind": "members", "count": len(self.members)})


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
