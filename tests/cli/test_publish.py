"""``trioroom publish --backplane``: past the servers; through one of them is in test_serve.py."""

from __future__ import annotations

import pytest
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.cli.conftest import DEADLINE, run
from trioroom.backplane.embedded import open_embedded
from trioroom.backplane.open import open_backplane
from trioroom.testing import open_peer, open_test_server


class Silent(trioroom.Room):
    """Its members may not publish; what comes from outside does not ask."""

    async def on_join(self, member: trioroom.Member) -> None:
        member.send("welcome")


@pytest.mark.redis
async def test_publication_reaches_members_whatever_their_room_thinks() -> None:
    app = trioroom.App()
    app.route("silent/{name}", Silent)
    with trio.fail_after(DEADLINE):
        async with open_embedded() as url, open_backplane(url) as backplane:
            async with open_test_server(app, backplane=backplane) as server, open_peer(server, "/silent/a") as member:
                assert await member.receive() == "welcome"
                for arguments, expected in (
                    (("hello",), "hello"),
                    (('{"x": 1}', "--json"), '{"x":1}'),
                ):
                    command = ["publish", "--backplane", url, "silent/a", *arguments]
                    result = await trio.to_thread.run_sync(lambda: run(*command))  # noqa: B023
                    assert result.output == "sent to silent/a\n"
                    assert await member.receive() == expected


@pytest.mark.redis
async def test_data_that_no_backplane_takes_is_a_usage_error() -> None:
    async with open_embedded() as url:
        for data, complaint in (
            ("1" + "0" * 30, "DATA cannot be published: "),
            (f'"{"x" * (5 << 20)}"', "max_publication_bytes"),
        ):
            command = ["publish", "--backplane", url, "chat/a", "--json", data]
            result = await trio.to_thread.run_sync(lambda: run(*command))  # noqa: B023
            assert result.exit_code == 2, result.output
            assert complaint in result.output


@pytest.mark.parametrize("other", [("--url", "ws://127.0.0.1:8000/"), ("--token", "secret")])
def test_server_and_backplane_exclude_each_other(other: tuple[str, ...]) -> None:
    result = run("publish", "--backplane", "redis://127.0.0.1", *other, "chat/a", "x")
    assert result.exit_code == 2
    assert "leave out --url and --token, or --backplane" in result.output


@pytest.mark.parametrize("inside", ["memory", "embedded"])
def test_backplane_inside_a_server_cannot_be_reached(inside: str) -> None:
    result = run("publish", "--backplane", inside, "chat/a", "x")
    assert result.exit_code == 2
    assert f"--backplane {inside} is inside a server" in result.output


def test_server_that_is_not_there_is_told_in_one_line() -> None:
    url = f"ws://127.0.0.1:{free_port()}/"
    result = run("publish", "chat/x", "hello", "--url", url)
    assert result.exit_code == 1
    assert result.output == f"Error: cannot reach {url}: Connection refused; is the server running there?\n"
