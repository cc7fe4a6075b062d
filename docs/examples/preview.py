import trio

import trioroom


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
app.route("preview", Preview)
