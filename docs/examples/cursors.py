import trio

import trioroom


class Cursors(trioroom.Room):
    """Where each member points: of what waits for a slow one, only the latest of each is worth sending."""

    overflow = trioroom.Overflow.LATEST
    max_outbox_messages = 500

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(message.data, exclude=member, key=member.id)


class Preview(trioroom.Room):
    """A picture twenty times a second, for those who can take it; the others get fewer, and none that is old."""

    async def on_open(self) -> None:
        self.nursery.start_soon(self.paint)

    async def paint(self) -> None:
        number = 0
        while True:
            number += 1
            for member in self.members:
                if member.lag.age < 0.5:
                    member.send(number.to_bytes(10_000, "big"))
            await trio.sleep(0.05)


app = trioroom.App()
app.route("cursors/{page}", Cursors)
app.route("preview", Preview)
