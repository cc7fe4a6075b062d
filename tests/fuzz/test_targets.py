"""What fuzzing has found so far stays as it should be, and so does what is close to it. Needs no fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.names import NAMES, REQUESTS
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.words import words
from trioroom._wire.codec import JSON, EnvelopeError

each_target = pytest.mark.parametrize("target", TARGETS)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 10), st.integers(0, 255)), max_size=4)


def run(target: str, data: bytes) -> None:
    try:
        TARGETS[target](data)
    except Exception as exc:
        exc.add_note(f"{target} of {data!r}")
        raise


@each_target
def test_what_was_found_is_as_it_should_be(target: str) -> None:
    inputs = corpus.read(target)
    assert inputs, "run the session fuzz with --keep"
    for data in inputs:
        run(target, data)


@each_target
def test_what_fuzzing_begins_with_is_as_it_should_be(target: str) -> None:
    assert seeds(target)
    for data in seeds(target):
        run(target, data)


@each_target
@given(choice=st.integers(0, 1 << 16), edits=EDITS, rest=st.binary(max_size=8))
def test_what_is_close_to_it_is_too(target: str, choice: int, edits: list[tuple[int, int]], rest: bytes) -> None:
    inputs = corpus.read(target) or [b""]
    data = bytearray(inputs[choice % len(inputs)] + rest)
    for at, byte in edits:
        if data:
            data[at % len(data)] = byte
    run(target, bytes(data))


def test_corpus_of_no_target_is_left_behind() -> None:
    assert {file.stem for file in corpus.DIRECTORY.iterdir()} == set(TARGETS)


def test_inputs_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "DIRECTORY", tmp_path)
    inputs = [b"", b"a", b"b", b"\r\n", b"'\"\\", bytes(range(256))]
    assert corpus.read("frames") == []
    corpus.write("frames", [*reversed(inputs), b"a"])
    assert corpus.read("frames") == inputs
    corpus.unpack(inputs, tmp_path / "inputs")
    assert set(corpus.pack(tmp_path / "inputs")) == set(inputs)


def test_words_are_those_that_are_spoken() -> None:
    assert b'"publish":' in words("envelopes")
    assert set(REQUESTS) < set(NAMES)
    for name in REQUESTS:
        (answer,) = JSON.decode(f'{{"type":"{name}"}}')
        assert not (isinstance(answer, EnvelopeError) and answer.error.code == "unknown_type")
