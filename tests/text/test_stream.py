"""Text streams against the whole text at once, cut in every way."""

import itertools
import random
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localllm.errors import InvalidArgument
from localllm.text.stream import TextStream


def expected(data: bytes, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first (the longest of those), found character by character."""
    text = data.decode("utf-8", "replace")
    for end in range(1, len(text) + 1):
        begins = [end - len(word) for word in stop if text[:end].endswith(word)]
        if begins:
            return text[: min(begins)], True
    return text, False


def stream(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[str, bool, list[str]]:
    reader = TextStream(pieces.__getitem__, stop)
    shown = [reader.push(token) for token in range(len(pieces))]
    shown.append(reader.finish())
    return "".join(shown), reader.stopped, shown


def cuts(data: bytes, at: tuple[int, ...]) -> list[bytes]:
    return [data[a:b] for a, b in itertools.pairwise((0, *at, len(data)))]


TEXTS = (
    "Hello, world. STOP here",
    "a\u00e9\u20ac\U0001f600z\U0001f1e9\U0001f1eastop",
    "ababac abcabd \n\nUser: x",
    "\U0001f600\U0001f600",
    "",
)
STOPS: tuple[tuple[str, ...], ...] = (
    (),
    ("STOP",),
    ("abac", "bac", "abd"),
    ("\U0001f600z", "stop"),
    ("\n\nUser:", "\n"),
    ("x",),
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("stop", STOPS)
def test_every_place_to_cut(text: str, stop: tuple[str, ...]) -> None:
    data = text.encode()
    whole = expected(data, stop)
    for count in (0, 1, 2):
        for at in itertools.combinations(range(len(data) + 1), count):
            assert stream(cuts(data, at), stop)[:2] == whole
    assert stream([bytes([byte]) for byte in data], stop)[:2] == whole


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_bytes_of_any_kind(data: st.DataObject) -> None:
    source = data.draw(st.binary(max_size=30) | st.text("ab\u00e9\u20ac\U0001f600", max_size=20).map(str.encode))
    at = data.draw(st.lists(st.integers(0, len(source)), max_size=8).map(sorted))
    stop = tuple(data.draw(st.lists(st.text("ab\u00e9\ufffd", min_size=1, max_size=4), max_size=3)))
    assert stream(cuts(source, tuple(at)), stop)[:2] == expected(source, stop)


def test_random_stops_by_brute_force() -> None:
    seed = 3
    source = random.Random(seed)
    for _ in range(3000):
        data = "".join(source.choices("ab\u00e9", k=source.randint(0, 16))).encode()
        stop = tuple("".join(source.choices("ab\u00e9", k=source.randint(1, 5))) for _ in range(source.randint(0, 3)))
        at = sorted(source.choices(range(len(data) + 1), k=source.randint(0, 6)))
        assert stream(cuts(data, tuple(at)), stop)[:2] == expected(data, stop), f"seed {seed}: {data!r} {stop} {at}"


def test_nothing_is_held_without_need() -> None:
    assert stream([b"ab", b"c"], ("cd",))[2] == ["ab", "", "c"]
    assert stream([b"abc", b"x"], ("cd",))[2] == ["ab", "cx", ""]
    assert stream([b"\xf0\x9f", b"\x98", b"\x80!"], ())[2] == ["", "", "\U0001f600!", ""]
    assert stream([b"\xf0\x9f", b"a"], ())[2] == ["", "\ufffda", ""]
    assert stream([b"\xf0\x9f\x98"], ())[2] == ["", "\ufffd"]
    assert stream([b"\xff\xfe"], ())[2] == ["\ufffd\ufffd", ""]


def test_at_most_three_bytes_wait() -> None:
    for character in ("\u00e9", "\u20ac", "\U0001f600"):
        data = character.encode()
        reader = TextStream([bytes([byte]) for byte in data].__getitem__)
        assert [reader.push(token) for token in range(len(data))] == [""] * (len(data) - 1) + [character]


def test_after_a_stop_nothing_comes() -> None:
    reader = TextStream([b"one STOP", b" two"].__getitem__, ("STOP",))
    assert (reader.push(0), reader.stopped) == ("one ", True)
    assert (reader.push(1), reader.finish(), reader.stopped) == ("", "", True)


def test_a_space_that_begins_an_answer_can_be_dropped() -> None:
    for pieces, text in (([b"", b"  two"], " two"), ([b"one", b" two"], "one two"), ([b" ", b" "], " "), ([], "")):
        reader = TextStream(pieces.__getitem__, skip_space=True)
        assert "".join(reader.push(token) for token in range(len(pieces))) + reader.finish() == text
    reader = TextStream([b" STOP"].__getitem__, (" STOP", "STOP"), skip_space=True)
    assert (reader.push(0), reader.stopped) == ("", True)


def test_long_stop_strings_that_nearly_come_cost_little() -> None:
    stops = ["a" * 1024, *(f"b{i}" + "a" * 1000 for i in range(15))]
    reader = TextStream([b"a"].__getitem__, stops)
    start = process_time()
    assert "".join(reader.push(0) for _ in range(1023)) == ""
    assert process_time() - start < 0.5
    assert (reader.push(0), reader.stopped) == ("", True)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="stop"):
        TextStream(bytes, ("a", ""))
