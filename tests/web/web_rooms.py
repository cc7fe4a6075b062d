"""What the tests of the JavaScript client serve: ``trioroom serve web_rooms:app``."""

from __future__ import annotations

import trioroom


class Kept(trioroom.Room):
    """Keeps more than any test says, shows who is here, and answers what it is asked."""

    history = trioroom.History(size=5_000, ttl=600)
    presence = trioroom.Presence(interval=0.2)

    async def authorize(self, member: trioroom.Member) -> None:
        if member.token:
            member.user = member.token

    async def on_join(self, member: trioroom.Member) -> object:
        return {"topic": "tea"}

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(message.data, sender=member, publication_id=message.publication_id)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        return message.data


class Fleeting(trioroom.Room):
    """Keeps nothing."""


app = trioroom.App()
app.route("kept/{name}", Kept)
app.route("fleeting/{name}", Fleeting)
