"""The rooms that ``trioroom bench`` serves when it is given no server: ``trioroom serve trioroom.bench.app:app``."""

from __future__ import annotations

import trioroom


class All(trioroom.Room):
    """Everybody gets everything."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """To the sender too."""
        await self.publish(message.data)


class Kept(All):
    """And may come back for it."""

    history = trioroom.History(size=10_000, ttl=600)


class Echo(trioroom.Room):
    """Each gets its own."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Straight back."""
        member.send(message.data)


app = trioroom.App()
app.route("all", All)
app.route("chat/{name}", All)
app.route("kept", Kept)
app.route("echo", Echo)
