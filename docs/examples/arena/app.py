"""A game: the room's own task moves everybody twenty times a second - trioroom serve arena.app"""

import random
from dataclasses import dataclass
from pathlib import Path

import trio

import trioroom

TICK = 0.05  # seconds
WIDTH, HEIGHT = 160.0, 90.0
SPEED = 45.0  # a second
REACH = 4.0  # from a player to a coin


@dataclass
class Player:
    x: float
    y: float
    heard: float  # when it last said where to
    dx: float = 0.0  # from -1 to 1
    dy: float = 0.0
    coins: int = 0

    def move(self, seconds: float) -> None:
        self.x = min(WIDTH, max(0.0, self.x + self.dx * SPEED * seconds))
        self.y = min(HEIGHT, max(0.0, self.y + self.dy * SPEED * seconds))

    def reaches(self, x: float, y: float) -> bool:
        return abs(self.x - x) < REACH and abs(self.y - y) < REACH


class Arena(trioroom.Room):
    """Players send where they want to go, the room says where they are: nobody can say so of themselves."""

    overflow = trioroom.Overflow.LATEST  # who is slow gets the picture of now, and none of those in between
    idle_timeout = 60.0  # seconds without an input after which a player has to go

    async def on_open(self) -> None:
        self.players: dict[str, Player] = {}
        self.coin = place()
        self.nursery.start_soon(self.run)  # cancelled after the last player has left

    async def run(self) -> None:
        due = trio.current_time()
        while True:
            due += TICK  # and not "now and a tick", which would drift
            await trio.sleep_until(due)
            self.step(TICK)
            await self.publish(self.picture(), key="picture")

    def step(self, seconds: float) -> None:
        for player in self.players.values():
            player.move(seconds)
            if player.reaches(*self.coin):
                player.coins += 1
                self.coin = place()

    def picture(self) -> trioroom.Data:
        players = {id: [round(each.x, 1), round(each.y, 1), each.coins] for id, each in self.players.items()}
        return {"players": players, "coin": self.coin}

    async def on_join(self, member: trioroom.Member) -> object:
        player = self.players[member.id] = Player(*place(), heard=trio.current_time())
        member.start_soon(self.watch, member, player)  # cancelled when the member leaves
        return {"you": member.id, "width": WIDTH, "height": HEIGHT, "picture": self.picture()}

    async def watch(self, member: trioroom.Member, player: Player) -> None:
        """Put out who plays no more, and takes room from those who do."""
        while True:
            await trio.sleep_until(player.heard + self.idle_timeout)
            if trio.current_time() >= player.heard + self.idle_timeout:
                return member.leave(f"no input for {self.idle_timeout:g} seconds")

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        match message.data:
            case [int() | float() as dx, int() | float() as dy] if abs(dx) <= 1 and abs(dy) <= 1:
                player = self.players[member.id]
                player.dx, player.dy, player.heard = dx, dy, trio.current_time()
            case _:
                raise trioroom.RequestRefused("bad_input", "send [dx, dy], both from -1 to 1")

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.players.pop(member.id, None)


def place() -> tuple[float, float]:
    return round(random.uniform(10, WIDTH - 10), 1), round(random.uniform(10, HEIGHT - 10), 1)


app = trioroom.App()
app.route("arena/{name}", Arena)
app.static("/", Path(__file__).with_name("page"))
