from pathlib import Path

import trioroom


class Chat(trioroom.Room):
    history = trioroom.History(size=100, ttl=3600)
    presence = True

    async def authorize(self, member: trioroom.Member) -> None:
        if not member.token:
            raise trioroom.JoinRefused("say who you are: connect with a token")
        member.user = member.token

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        said = {"name": member.user, "text": message.data}
        await self.publish(said, publication_id=message.publication_id)


app = trioroom.App()
app.route("chat/{name}", Chat)
app.static("/", Path(__file__).with_name("running_chat_page"))
