import trioroom


class News(trioroom.Room):
    """Members who were away for up to five minutes get what they missed."""

    history = trioroom.History(size=500, ttl=300)


app = trioroom.App()
app.route("news/{name}", News)
