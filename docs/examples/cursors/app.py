"""Where everybody points, up to twenty times a second - trioroom serve cursors.app"""

from pathlib import Path

import trioroom

LONGEST_NAME = 30


class Cursors(trioroom.Room):
    """Of what waits for a slow member, only the latest place of each cursor is worth sending."""

    overflow = trioroom.Overflow.LATEST
    max_outbox_messages = 500

    async def on_open(self) -> None:
        self.places: dict[str, object] = {}  # of who is here on this server

    async def on_join(self, member: trioroom.Member) -> object:
        return self.places

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        match message.data:
            case {"x": int() | float() as x, "y": int() | float() as y, "name": str(name)} if len(name) <= LONGEST_NAME:
                place: trioroom.Data = {"x": x, "y": y, "name": name}
            case _:
                raise trioroom.RequestRefused("bad_place", f"send x, y, and a name of up to {LONGEST_NAME} letters")
        self.places[member.id] = place
        await self.publish(place, exclude=member, key=member.id)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.places.pop(member.id, None)
        await self.publish(None, exclude=member, key=member.id)  # in the place of its last move, if that still waits


app = trioroom.App()
app.route("cursors/{page}", Cursors)
app.static("/", Path(__file__).with_name("page"))
