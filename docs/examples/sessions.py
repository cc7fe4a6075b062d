"""Rooms for those who are logged in to a web application - trioroom serve sessions:app"""

from http.cookies import CookieError, SimpleCookie

import trioroom

SESSIONS = {"3c9d0e": "ann"}  # in earnest: a database, or the web application asked over HTTP


async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
    """By the session cookie, which a browser sends along."""
    try:
        cookies = SimpleCookie(credentials.request.header("cookie") or "")
    except CookieError as exc:
        raise trioroom.AuthenticationRefused("cookies that cannot be read") from exc
    session = cookies.get("session")
    user = None if session is None else SESSIONS.get(session.value)
    if user is None:
        raise trioroom.AuthenticationRefused("log in first")
    return trioroom.Identity(user, info={"name": user.title()})


app = trioroom.App(authenticate=authenticate)
app.route("chat/{name}", trioroom.Room)
