"""What a server may do to who fetches from it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.auth.conftest import Issuer
from trioroom.auth.fetch import FetchError, fetch_document, parse_key_set_url


async def get(url: str, timeout: float = 5.0, max_bytes: int = 1_000) -> bytes:
    context = ssl.create_default_context()
    return await fetch_document(parse_key_set_url(url), timeout=timeout, max_bytes=max_bytes, ssl_context=context)


@contextmanager
def server_that(answers: Callable[[socket.socket], None]) -> Iterator[str]:
    """Does with a connection what no HTTP library would."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            try:
                answers(connection)
            except OSError:
                pass  # the client has gone, as it should

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


async def test_document_is_fetched(issuer: Issuer) -> None:
    issuer.document = b"x" * 1_000
    assert await get(issuer.url) == issuer.document


async def test_document_that_is_too_large_is_not_read_on(issuer: Issuer) -> None:
    issuer.document = b"x" * 1_001
    with pytest.raises(FetchError, match="the document exceeds 1000 bytes"):
        await get(issuer.url)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 404, 500])
async def test_other_answers_are_none_and_redirects_not_followed(issuer: Issuer, status: int) -> None:
    issuer.status, issuer.headers = status, {"Location": issuer.url}
    with pytest.raises(FetchError, match=f"HTTP {status}"):
        await get(issuer.url)
    assert issuer.asked == 1


async def test_server_that_drips_is_given_up() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.02)  # for a thread that blocks there is no other clock

    begin = time.monotonic()
    with server_that(drip) as url, pytest.raises(FetchError, match=r"did not come within 0\.2 s"):
        await get(url, timeout=0.2)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"])
async def test_nonsense_is_an_error(answer: bytes) -> None:
    with server_that(lambda connection: connection.sendall(answer)) as url, pytest.raises(FetchError):
        assert await get(url) == b"nothing else"


async def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(FetchError, match="refused"):
        await get(f"http://127.0.0.1:{port}/")


async def test_server_that_drips_its_head_is_given_up() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.02)

    begin = time.monotonic()
    with server_that(drip) as url, pytest.raises(FetchError, match=r"did not come within 0\.2 s"):
        await get(url, timeout=0.2)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("variables", "answer"),
    [
        ({"https_proxy": "PROXY"}, "answered CONNECT with HTTP 403"),
        ({"https_proxy": "http://PROXY"}, "answered CONNECT with HTTP 403"),
        (
            {"https_proxy": "PROXY", "no_proxy": "issuer.invalid"},
            "Name or service|resolution|No address",
        ),
        ({"https_proxy": "socks5://s3cret@PROXY"}, "is no URL of the kind http"),
    ],
)
async def test_proxy_of_the_environment_is_asked(
    variables: dict[str, str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with server_that(refuse) as url:
        address = url.removeprefix("http://").rstrip("/")
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("PROXY", address))
        with pytest.raises(FetchError, match=answer) as failed:
            await get("https://issuer.invalid/jwks.json")
        assert "s3cret" not in str(failed.value)
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:  # maybe nobody else has come
            connection.sendall(b"\n")
