"""The rooms that transcripts are played with."""

from __future__ import annotations

import time

import attrs
import trio

import trioroom


class Chat(trioroom.Room):
    """Publishes to the others, as rooms do by default; tells who comes what it is about."""

    async def on_join(self, member: trioroom.Member) -> object:
        return {"topic": "tea"}


class Private(trioroom.Room):
    """Lets in who has the word."""

    async def authorize(self, member: trioroom.Member) -> None:
        if member.token != "t0k3n":
            raise trioroom.JoinRefused("the word is another")


class Small(trioroom.Room):
    """Has one place."""

    max_members = 1


class News(trioroom.Room):
    """Keeps the last five messages."""

    history = trioroom.History(size=5)


class Lounge(trioroom.Room):
    """Shows who is in it: the token says who one is."""

    presence: bool | trioroom.Presence = trioroom.Presence(interval=1.0, grace=2.0)

    async def on_join(self, member: trioroom.Member) -> object:
        if member.token is not None:
            member.user = member.token
            member.info = {"name": member.token.title()}
        return None


class Crowd(Lounge):
    """Shows how many are in it."""

    presence = trioroom.Presence(interval=1.0, grace=2.0, count_only=True)


class Desk(trioroom.Room):
    """Answers questions."""

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        if message.data == "how many?":
            return 12
        if message.data == "fail":
            raise ValueError("asked to")
        if message.data == "slow":
            await trio.sleep_forever()
        return {"bytes": len(message.data)} if isinstance(message.data, bytes) else None


ROUTES: dict[str, type[trioroom.Room]] = {
    "chat/{name}": Chat,
    "private/{name}": Private,
    "small/{name}": Small,
    "news/{name}": News,
    "lounge/{name}": Lounge,
    "crowd/{name}": Crowd,
    "desk/{name}": Desk,
}


async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
    """Takes ``ann``, and ``ann 20`` for 20 seconds."""
    await trio.lowlevel.checkpoint()
    user, _, seconds = (credentials.token or "").partition(" ")
    if user != "ann" and user != "bob":
        raise trioroom.AuthenticationRefused("only Ann and Bob are known here")
    return trioroom.Identity(user, expires_at=time.time() + float(seconds) if seconds else None)


@attrs.frozen
class Stage:
    """An app with all these rooms."""

    authenticates: bool = False
    app: trioroom.App = attrs.field(init=False)
    rooms: dict[str, trioroom.Room] = attrs.field(factory=dict)
    """Those that are open, by their names."""

    @app.default
    def _make_app(self) -> trioroom.App:
        return trioroom.App(authenticate=authenticate if self.authenticates else None)

    def __attrs_post_init__(self) -> None:
        for pattern, room_class in ROUTES.items():
            self.app.route(pattern, self._noted(room_class))

    def _noted(self, room_class: type[trioroom.Room]) -> type[trioroom.Room]:
        rooms = self.rooms

        class Noted(room_class):  # type: ignore[misc, valid-type]  # a class made from a table
            async def on_open(self) -> None:
                rooms[self.name] = self

            async def on_close(self) -> None:
                rooms.pop(self.name, None)

        return Noted

    def put_out(self, room: str, reason: str) -> None:
        """Everybody who is in ``room``."""
        for member in list(self.rooms[room].members):
            member.leave(reason)
