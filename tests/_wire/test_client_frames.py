from __future__ import annotations

import os

import pytest

from tests._wire.conftest import BINARY, MASK, TEXT, frame
from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.frames import encode_frame

SIZES = [0, 1, 5, 125, 126, 127, 65_535, 65_536, 65_537]


@pytest.mark.parametrize("size", SIZES)
def test_masked_frame_is_one_that_a_client_would_send(size: int) -> None:
    payload = os.urandom(size)
    assert encode_masked(BINARY, payload, MASK) == frame(BINARY, payload)
    assert encode_masked(TEXT, payload) == frame(TEXT, payload, mask=bytes(4))


@pytest.mark.parametrize("size", SIZES)
def test_frame_is_taken_only_when_whole(size: int) -> None:
    payload = os.urandom(size)
    data = encode_frame(BINARY, payload)
    for at in {0, 1, 2, 3, 4, 9, 10, len(data) - 1} & set(range(len(data))):
        assert take_frame(data[:at]) is None
    assert take_frame(data) == (BINARY, payload, b"")
    assert take_frame(data + b"next") == (BINARY, payload, b"next")
    view = take_frame(memoryview(data + b"next"))
    assert view is not None
    assert isinstance(view[1], memoryview)
    assert (view[0], bytes(view[1]), bytes(view[2])) == (BINARY, payload, b"next")
