"""A chat for those who have a token, and rooms for those whose token says so - trioroom serve members_only:app"""

import os

import trioroom
from trioroom.auth import JWTAuthenticator


class Chat(trioroom.Room):
    presence = True

    async def authorize(self, member: trioroom.Member) -> None:
        assert member.identity is not None, "nobody is anonymous here"
        rooms = member.identity.claims.get("rooms")
        if not isinstance(rooms, list) or self.params["name"] not in rooms:
            raise trioroom.JoinRefused(f"{member.user} may not join {self.params['name']}")

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(f"{member.user}: {message.data}")


authenticate = JWTAuthenticator(
    os.environ["CHAT_SECRET"],  # 32 random bytes or more, which only the issuer has besides
    algorithms=["HS256"],
    audience="chat",
    issuer="https://login.example",
)
app = trioroom.App(authenticate=authenticate)
app.route("chat/{name}", Chat)
