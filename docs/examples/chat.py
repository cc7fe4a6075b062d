import trioroom


class Chat(trioroom.Room):
    async def on_join(self, member: trioroom.Member) -> None:
        await self.publish(f"* {member.id} came to {self.params['name']}", exclude=member)

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(f"{member.id}: {message.data}", exclude=member)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await self.publish(f"* {member.id} left: {reason}")


app = trioroom.App()
app.route("chat/{name}", Chat)
