"""An auction: all may look, some may bid, and the clock has the last word - python app.py prints links for each."""

import math
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import jwt
import trio

import trioroom
from trioroom.auth import JWTAuthenticator

SECRET = os.environ.get("AUCTION_SECRET") or secrets.token_hex(32)  # your login has the same: it issues the tokens

PAGE = Path(__file__).with_name("page")
MOST = 1_000_000  # beyond it a bid is a slip of the finger, or mischief


@dataclass
class Lot:
    """What is sold, and for how much. It outlives the room, which ends when nobody looks; a database would keep it."""

    title: str
    minimum: int
    seconds: float
    bidder: str | None = None
    amount: int = 0
    closes_at: float = math.inf  # of Trio's clock
    told: bool = False  # that it is sold

    def open(self) -> None:
        """Start the clock, with the first visitor."""
        self.closes_at = min(self.closes_at, trio.current_time() + self.seconds)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.closes_at - trio.current_time())

    def bid(self, bidder: str, amount: int) -> None:
        """Take a bid, or raise what the bidder is told."""
        if self.seconds_left == 0:
            raise trioroom.RequestRefused("closed", f"the auction has ended: {self.title}")
        if amount < self.minimum:
            raise trioroom.RequestRefused("too_low", f"{amount} is too low; bid {self.minimum} or more")
        if amount > MOST:
            raise trioroom.RequestRefused("too_high", f"{amount} is more than anybody here may bid")
        self.bidder, self.amount, self.minimum = bidder, amount, amount + 5


class Auction(trioroom.Room):
    """Sells one lot: each bid is a call, which has an answer; what came of it is published, and kept for latecomers."""

    history = trioroom.History(size=500, ttl=86_400)
    lot: Lot

    async def authorize(self, member: trioroom.Member) -> None:
        if role_of(member) == "excluded":
            raise trioroom.JoinRefused(f"{member.user} is excluded from this auction")

    async def on_open(self) -> None:
        self.lot.open()
        self.hammer = trio.Lock()  # so that bids are published in the order in which they were taken
        self.nursery.start_soon(self.sell)

    async def sell(self) -> None:
        """Tell when time is up. This task ends with the room; that later bids are refused is the lot's own business."""
        await trio.sleep(self.lot.seconds_left)
        async with self.hammer:
            if not self.lot.told:  # by the room that was here before
                sold = {"kind": "sold", "bidder": self.lot.bidder, "amount": self.lot.amount}
                await self.publish(sold, publication_id=f"sold {self.name}")  # and not twice, if that was cut off here
                self.lot.told = True

    async def on_join(self, member: trioroom.Member) -> object:
        lot, may_bid = self.lot, role_of(member) == "bidder"
        return {"title": lot.title, "minimum": lot.minimum, "seconds_left": lot.seconds_left, "may_bid": may_bid}

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        raise trioroom.RequestRefused("denied", "only the auctioneer speaks here; bids are calls")

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        if role_of(member) != "bidder":
            raise trioroom.RequestRefused("denied", "you may look, but not bid")
        match message.data:
            case {"bid": int(amount)}:
                async with self.hammer:
                    self.lot.bid(member.user, amount)
                    minimum = self.lot.minimum
                    with trio.CancelScope(shield=True):  # a bid that counts is told; `publish` ends by its own deadline
                        await self.publish({"kind": "bid", "bidder": member.user, "amount": amount, "minimum": minimum})
                return {"yours_at": amount}
        raise trioroom.RequestRefused("bad_bid", 'call with {"bid": 120}, a whole number')


class Vase(Auction):
    lot = Lot("A vase, about 1890", minimum=100, seconds=180)


def role_of(member: trioroom.Member) -> object:
    """What its token says. Who has none is nobody, and may look."""
    return None if member.identity is None else member.identity.claims.get("role")


def issue(user: str, role: str) -> str:
    """A token, as your login would issue it to somebody it knows."""
    claims = {"sub": user, "role": role, "aud": "auction", "exp": time.time() + 3600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


authenticate = JWTAuthenticator(SECRET, algorithms=["HS256"], audience="auction", allow_anonymous=True)
app = trioroom.App(authenticate=authenticate)
app.route("auction/vase", Vase)
app.static("/", PAGE)


async def main(port: int = 8000) -> None:
    async with trioroom.open_server(app, port=port) as server:
        page = f"http://127.0.0.1:{server.port}/"
        for user, role in (("ann", "bidder"), ("bob", "bidder"), ("eve", "excluded")):
            print(f"{user}, {role}: {page}#{issue(user, role)}")
        print(f"nobody, who may look: {page}", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:  # Ctrl-C; every task and socket is gone by now
        pass
