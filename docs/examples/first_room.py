import trioroom


class Echo(trioroom.Room):
    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(message.data)


app = trioroom.App()
app.route("echo", Echo)
