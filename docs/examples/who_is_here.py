from urllib.parse import parse_qs

import trioroom


class Lounge(trioroom.Room):
    """Everybody sees who is here; somebody with three tabs is here once."""

    presence = trioroom.Presence(interval=0.5, grace=3.0)

    async def authorize(self, member: trioroom.Member) -> None:
        name = member.token or parse_qs(member.request.query).get("name", [""])[0]
        if not 1 <= len(name) <= 40:  # a real room would check a signed token here
            raise trioroom.JoinRefused("say who you are, in 1 to 40 characters")
        member.user = name.lower()
        member.info = {"name": name}

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        page = self.who(limit=10)
        return f"{page.count} here, among them {', '.join(present.user for present in page.members)}"


app = trioroom.App()
app.route("lounge/{name}", Lounge)
