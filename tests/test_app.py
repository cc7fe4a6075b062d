"""`App`: its routes and files, and publishing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Hall(trioroom.Room):
    """Tells its members which class they are with."""

    async def on_join(self, member: trioroom.Member) -> object:
        return type(self).__name__


class Lobby(Hall):
    """Another one."""


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("room/{name}", Hall)
    return app


# -- routes and files ------------------------------------------------------------------------------------


async def test_first_route_that_matches_wins(autojump_clock: MockClock) -> None:
    app = trioroom.App()
    app.route("room/lobby", Lobby)
    app.route("room/{name}", Hall)
    app.route("{any}/lobby", Lobby)
    async with open_test_server(app) as server:
        for path, name in (("/room/lobby", "Lobby"), ("/room/other", "Hall"), ("/other/lobby", "Lobby")):
            async with open_peer(server, path) as peer:
                assert await peer.receive() == name
        with pytest.raises(trioroom.ConnectionClosed, match="no room at '/other/other'"):
            async with open_peer(server, "/other/other"):
                pass


@pytest.mark.parametrize("wrong", [object, Hall(), "Hall", None])
def test_route_needs_a_room_class(wrong: type[trioroom.Room], app: trioroom.App) -> None:
    with pytest.raises(TypeError, match=r"route 'a' needs a subclass of trioroom.Room, got "):
        app.route("a", wrong)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "must not be empty nor start or end with '/'"),
        ("/chat", "must not be empty nor start or end with '/'"),
        ("chat/", "must not be empty nor start or end with '/'"),
        ("room/{name}", "is there already"),
        ("{a}/{a}", "names {a} twice"),
        ("chat/{", "has a brace that is no {parameter}"),
        ("chat/{1a}", "has a brace that is no {parameter}"),
    ],
)
def test_route_needs_a_well_formed_pattern_of_its_own(pattern: str, message: str, app: trioroom.App) -> None:
    with pytest.raises(ValueError, match="route pattern") as error:
        app.route(pattern, Hall)
    assert message in str(error.value)


def test_static_needs_a_prefix_between_slashes_and_a_directory(tmp_path: Path, app: trioroom.App) -> None:
    for prefix in ("", "static/", "/static"):
        with pytest.raises(ValueError, match="must begin and end with '/'"):
            app.static(prefix, tmp_path)
    with pytest.raises(ValueError, match="is not there"):
        app.static("/", tmp_path / "missing")
    app.static("/", str(tmp_path))


# -- publishing from outside --------------------------------------------------------------------------


async def test_publish_reaches_every_member_of_the_room_without_a_sender(
    app: trioroom.App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server:
        async with open_peer(server, "/room/a") as plain, open_peer(server, "/room/b") as elsewhere:
            async with open_v1_peer(server) as v1:
                await v1.join("room/a")
                await app.publish("room/a", {"a": 1})
                await app.publish("room/nobody", "lost")
                await app.publish("room/b", "for b")
                assert [await plain.receive() for _ in range(2)] == ["Hall", '{"a":1}']
                assert await v1.receive() == {"type": "message", "room": "room/a", "data": {"a": 1}}
                assert [await elsewhere.receive() for _ in range(2)] == ["Hall", "for b"]


async def test_publish_needs_data_and_a_running_server(app: trioroom.App, autojump_clock: MockClock) -> None:
    message = r"app.publish needs a running server; open one with trioroom.open_server\(app\)"
    with pytest.raises(RuntimeError, match=message):
        await app.publish("room/a", "too early")
    async with open_test_server(app):
        with pytest.raises(TypeError):
            await app.publish("room/a", object())  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(RuntimeError, match=message):
        await app.publish("room/a", "too late")


async def test_servers_with_one_backplane_share_their_rooms(app: trioroom.App, autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    other_app = trioroom.App()
    other_app.route("room/{name}", Lobby)
    async with open_test_server(app, backplane=backplane) as server:
        async with open_test_server(other_app, backplane=backplane) as other_server:
            async with open_peer(server, "/room/a") as here, open_peer(other_server, "/room/a") as there:
                assert (await here.receive(), await there.receive()) == ("Hall", "Lobby")
                await here.send("to the other side")
                assert await there.receive() == "to the other side"
                await app.publish("room/a", "to both sides")
                assert (await here.receive(), await there.receive()) == ("to both sides", "to both sides")
