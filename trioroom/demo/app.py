"""A chat room and its page. What members get is one of two objects, told apart by ``kind``:

``{"kind":"message","user":..,"name":..,"text":..}`` and ``{"kind":"error","text":..}``.

The room keeps what was said, so that a page shows the last of it when it opens, and goes on where it was when it comes
back. Who is here is presence: a page says who it is by the token of ``auth``, ``{"user":..,"name":..}`` in JSON. Nobody
checks that, as there is nothing to be had by it; an application would.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import trioroom

MAX_NAME = 40
MAX_TEXT = 2_000
MAX_USER = 64
PAGE = Path(__file__).parent / "page"


class Post(msgspec.Struct, frozen=True):
    """What a page sends. Lengths are in characters, the name's without the blanks around it."""

    name: str
    text: str

    def __post_init__(self) -> None:
        _check_length("name", self.name.strip(), MAX_NAME)
        _check_length("text", self.text, MAX_TEXT)


class Visitor(msgspec.Struct, frozen=True):
    """Who a page says it is; ``user`` is the same for as long as its tab is open."""

    user: str
    name: str

    def __post_init__(self) -> None:
        _check_length("user", self.user, MAX_USER)
        _check_length("name", self.name.strip(), MAX_NAME)


def _check_length(field: str, value: str, limit: int) -> None:
    if not 1 <= len(value) <= limit:
        raise ValueError(f"{field} has {len(value)} characters; send 1 to {limit}")


class Chat(trioroom.Room):
    """Everybody sees what anybody says, what was said before, and who is here."""

    history = trioroom.History(size=500, ttl=86_400)
    presence = trioroom.Presence(grace=3.0)  # a page that is loaded anew is back before that

    async def authorize(self, member: trioroom.Member) -> None:
        """Everybody is welcome; who brings no name is a guest."""
        visitor = read_visitor(member.token)
        if visitor is not None:
            member.user = visitor.user
        member.info = {"name": guest_name(member) if visitor is None else visitor.name.strip()}

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Publish an object with name and text, or text alone under a guest's name, to everybody."""
        try:
            post = read_post(member, message.data)
        except msgspec.ValidationError as exc:
            member.send({"kind": "error", "text": str(exc)})
            return
        said = {"kind": "message", "user": member.user, "name": post.name.strip(), "text": post.text}
        await self.publish(said, sender=member, publication_id=message.publication_id)


def guest_name(member: trioroom.Member) -> str:
    """For those who have not said what they are called."""
    return f"guest-{member.id[:4]}"


def read_visitor(token: str | None) -> Visitor | None:
    """Who the token says its bearer is; None for what is no such token."""
    try:
        return msgspec.json.decode(token or "", type=Visitor)
    except msgspec.DecodeError:
        return None


def read_post(member: trioroom.Member, data: object) -> Post:
    """The post that ``data`` is.

    Raises:
        msgspec.ValidationError: it is none; says what is wrong and what to send.
    """
    if isinstance(data, str):  # verbatim, also when it happens to look like JSON
        data = {"name": guest_name(member), "text": data}
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
