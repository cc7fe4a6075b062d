"""A room whose own lines in the log have fields."""

from __future__ import annotations

import logging

from trioroom import App, Member, Message, Room

log = logging.getLogger("game")


class Game(Room):
    async def on_message(self, member: Member, message: Message) -> None:
        if message.data == "I win":
            log.warning("cheating: %s", member.user, extra={"room": self.name, "connection": member.id, "score": 17})
            member.leave("cheating")


app = App()
app.route("game", Game)
