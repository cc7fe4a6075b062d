"""What a server may do to who fetches from it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.auth.conftest import Issuer
from trioroom.auth.fetch import FetchError, fetch


def get(url: str, timeout: float = 5.0, max_bytes: int = 1_000) -> bytes:
    return fetch(url, timeout=timeout, max_bytes=max_bytes, ssl_context=None)


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


def test_document_is_fetched(issuer: Issuer) -> None:
    issuer.document = b"x" * 1_000
    assert get(issuer.url) == issuer.document


def test_document_that_is_too_large_is_not_read_on(issuer: Issuer) -> None:
    issuer.document = b"x" * 1_001
    with pytest.raises(FetchError, match="the document exceeds 1000 bytes"):
        get(issuer.url)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 404, 500])
def test_other_answers_are_none_and_redirects_not_followed(issuer: Issuer, status: int) -> None:
    issuer.status, issuer.headers = status, {"Location": issuer.url}
    with pytest.raises(FetchError, match=f"HTTP {status}"):
        get(issuer.url)
    assert issuer.asked == 1


def test_server_that_drips_is_given_up() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.02)  # for a thread that blocks there is no other clock

    begin = time.monotonic()
    with server_that(drip) as url, pytest.raises(FetchError, match=r"did not come within 0\.2 s"):
        get(url, timeout=0.2)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"])
def test_nonsense_is_an_error(answer: bytes) -> None:
    with server_that(lambda connection: connection.sendall(answer)) as url, pytest.raises(FetchError):
        assert get(url) == b"nothing else"


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(FetchError, match="refused"):
        get(f"http://127.0.0.1:{port}/")
