from __future__ import annotations

from itertools import pairwise

import attrs
from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.frames import Opcode, encode_frame
from trioroom.bench.frames import FrameCounter, head_bytes

BUFFER = 1 << 18
EXPECTED = encode_frame(Opcode.TEXT, b"x" * 12)


@attrs.frozen
class Sent:
    """A frame of a server, and what a counter is to make of it."""

    data: bytes
    messages: int = 0
    control: tuple[tuple[int, bytes], ...] = ()


def data_frame(payload: bytes, *, fin: bool = True) -> Sent:
    whole = encode_frame(Opcode.TEXT, payload)
    return Sent(whole, 1) if fin else Sent(bytes((whole[0] & 0x7F,)) + whole[1:], 0)


def control_frame(opcode: int, payload: bytes) -> Sent:
    return Sent(encode_frame(opcode, payload), 0, ((opcode, payload),))


FRAMES = st.one_of(
    st.just(Sent(EXPECTED, 1)),
    st.builds(data_frame, st.binary(max_size=300), fin=st.booleans()),
    st.sampled_from([65_535, 65_536]).map(lambda size: data_frame(bytes(size))),
    st.builds(control_frame, st.sampled_from([Opcode.PING, Opcode.CLOSE]), st.binary(max_size=125)),
    st.builds(control_frame, st.just(Opcode.PING), st.binary(min_size=12, max_size=12)),  # as long as an expected one
)
STREAMS = st.lists(st.one_of(FRAMES, st.just(Sent(EXPECTED, 1))), max_size=30)


def fed(counter: FrameCounter, buffer: bytearray, stream: object, chunks: list[bytes]) -> int:
    count = 0
    for chunk in chunks:
        buffer[: len(chunk)] = chunk
        count += counter.take(stream, len(chunk))
    return count


@given(STREAMS, st.lists(st.integers(0, 70_000), max_size=20), st.booleans())
def test_any_chunking_gives_the_same_count(frames: list[Sent], cuts: list[int], expecting: bool) -> None:
    data = b"".join(frame.data for frame in frames)
    bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    chunks = [data[start:end][i : i + BUFFER] for start, end in pairwise(bounds) for i in range(0, end - start, BUFFER)]
    buffer = bytearray(BUFFER)
    counter = FrameCounter(buffer)
    if expecting:
        counter.expect(EXPECTED)
    assert fed(counter, buffer, 1, chunks) == sum(frame.messages for frame in frames)
    assert counter.control == [said for frame in frames for said in frame.control]


@given(STREAMS)
def test_frames_byte_by_byte_are_counted_too(frames: list[Sent]) -> None:
    data = b"".join(frame.data for frame in frames if len(frame.data) < 1_000)
    buffer = bytearray(16)
    counter = FrameCounter(buffer)
    counter.expect(EXPECTED)
    count = fed(counter, buffer, 1, [data[at : at + 1] for at in range(len(data))])
    assert count == sum(frame.messages for frame in frames if len(frame.data) < 1_000)


def test_frame_that_looks_like_several_expected_ones_is_one() -> None:
    inner = data_frame(EXPECTED * 2 + EXPECTED[:-2])  # with its head it is as long as three
    buffer = bytearray(BUFFER)
    counter = FrameCounter(buffer)
    counter.expect(EXPECTED)
    assert len(inner.data) == 3 * len(EXPECTED)
    assert fed(counter, buffer, 1, [EXPECTED + inner.data + EXPECTED]) == 3


def test_streams_do_not_mix_and_one_that_ended_is_forgotten() -> None:
    buffer = bytearray(BUFFER)
    counter = FrameCounter(buffer)
    assert fed(counter, buffer, 1, [EXPECTED[:5]]) == 0
    assert fed(counter, buffer, 2, [EXPECTED]) == 1
    assert fed(counter, buffer, 1, [EXPECTED[5:]]) == 1
    assert fed(counter, buffer, 2, [EXPECTED[:5]]) == 0
    counter.forget(2)
    assert fed(counter, buffer, 2, [EXPECTED]) == 1


def test_unexpected_whole_data_frames_can_be_looked_at() -> None:
    buffer = bytearray(BUFFER)
    counter = FrameCounter(buffer)
    seen: list[bytes] = []
    counter.inspect = seen.append
    other = encode_frame(Opcode.TEXT, b"other")
    fed(counter, buffer, 1, [EXPECTED + other])
    counter.expect(EXPECTED)
    fed(counter, buffer, 1, [EXPECTED * 2 + other])
    assert seen == [EXPECTED, other, other]


def test_head_is_as_long_as_its_second_byte_says() -> None:
    assert [head_bytes(second) for second in (0, 125, 126, 127)] == [2, 2, 4, 10]
