"""Encoding against llama.cpp's recorded cases, round trips, special tokens, and how fast a vocabulary is ready."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localllm.errors import InvalidArgument
from localllm.text.tokenizer import GUARD, Tokenizer
from tests.conftest import shared_folder
from tests.text import vocabularies
from tests.text.gguf_metadata import read_metadata

SHARED = shared_folder()
VOCABULARIES = sorted(SHARED.glob("vocab/*.gguf")) if SHARED else []
KINDS = (vocabularies.byte_level, vocabularies.sentence_piece, vocabularies.plain_bpe)
NO_MATERIAL = pytest.mark.skipif(SHARED is None, reason="no shared test material: set LOCALLLM_TEST_DATA")


@cache
def load(path: Path) -> Tokenizer:
    return Tokenizer(read_metadata(path))


@NO_MATERIAL
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_recorded_cases(path: Path) -> None:
    tokenizer = load(path)
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().splitlines()
    assert len(texts) - len(lines) in (0, 1)  # the last text may be nothing, after the last separator
    for text, line in zip(texts, lines, strict=False):
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        assert ids == [int(number) for number in line.split()], text
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(tokenizer.encode(text)) == text


@NO_MATERIAL
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: "\u2581" not in text))  # SentencePiece's own mark for a space
def test_every_text_comes_back(path: Path, text: str) -> None:
    tokenizer = load(path)
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    assert tokenizer.decode(ids) == text
    assert not any(tokenizer.is_special(i) for i in ids)
    pieces = b"".join(tokenizer.token_bytes(i) for i in ids).decode()
    assert pieces in (text, f" {text}")


@NO_MATERIAL
def test_a_large_vocabulary_is_ready_quickly() -> None:
    metadata = read_metadata(SHARED / "vocab/ggml-vocab-llama-bpe.gguf") if SHARED else {}
    assert best_seconds(lambda: Tokenizer(metadata)) < 1.0  # 0.4 s on a quiet machine


def test_a_small_vocabulary_is_ready_at_once() -> None:
    metadata = vocabularies.byte_level()
    assert best_seconds(lambda: Tokenizer(metadata)) < 0.05


def best_seconds(work: Callable[[], object]) -> float:
    """Of processor time in five tries: what else the machine does slows even that."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("helo wrd\n<|im_end>\u00e9\u20ac\U0001f600\ufdd0\x00"), max_size=40))
@pytest.mark.parametrize("make", KINDS)
def test_small_vocabularies_round_trip(make: Callable[[], dict[str, Any]], text: str) -> None:
    tokenizer = small(make)
    ids = tokenizer.encode(text, parse_special=False)
    assert tokenizer.decode(ids) == text
    parsed = tokenizer.encode(text)
    assert (
        tokenizer.decode(parsed, special=True).removeprefix(tokenizer.decode(tokenizer.encode(""), special=True))
        == text
    )
    guarded = tokenizer.encode_guarded(tokenizer.guard(text))
    assert guarded == tokenizer.encode(text, add_special=False, parse_special=False)


@cache
def small(make: Callable[[], dict[str, Any]]) -> Tokenizer:
    return Tokenizer(make())


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_bytes(i).decode() for i in ids]


def test_merges_and_words() -> None:
    tokenizer = small(vocabularies.byte_level)
    assert names(tokenizer, tokenizer.encode("hello world", add_special=False)) == ["hello", " world"]
    tokenizer = small(vocabularies.sentence_piece)
    assert names(tokenizer, tokenizer.encode("hello world")) == ["<s>", " hello", " world"]
    tokenizer = small(vocabularies.plain_bpe)
    assert names(tokenizer, tokenizer.encode("hello wo\n\n")) == ["<bos>", "hello", " w", "o", "\n\n"]
    tokenizer = small(vocabularies.word_piece)
    assert names(tokenizer, tokenizer.encode("Hello, world!")) == [
        "[CLS]",
        " hello",
        "[UNK]",
        " wor",
        "ld",
        " !",
        "[SEP]",
    ]
    assert tokenizer.decode(tokenizer.encode("hello world!")) == "hello world !"


def test_special_tokens_are_parsed_only_where_asked() -> None:
    tokenizer = small(vocabularies.byte_level)
    text = "<|im_start|>hello<|im_end|><think>"
    parsed = tokenizer.encode(text, add_special=False)
    assert names(tokenizer, parsed) == ["<|im_start|>", "hello", "<|im_end|>", "<think>"]
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    assert not any(tokenizer.is_special(i) for i in plain)
    assert names(tokenizer, plain)[-1] == "<think>"  # defined by the user: a token in any text
    assert tokenizer.decode(parsed) == "hello<think>"
    assert tokenizer.decode(parsed, special=True) == text
    assert [tokenizer.shown_bytes(i) for i in parsed] == [b"", b"hello", b"", b"<think>"]


def test_tokens_that_mark_turns_are_special_whatever_their_type() -> None:
    metadata = vocabularies.byte_level()
    turns = ["<\uff5cUser\uff5c>", "<|START_OF_TURN_TOKEN|>"]
    metadata["tokenizer.ggml.tokens"] += [*turns, '<|"|>']
    metadata["tokenizer.ggml.token_type"] += [vocabularies.USER_DEFINED] * 3
    tokenizer = Tokenizer(metadata)
    text = "".join(turns) + '<|"|>'
    assert names(tokenizer, tokenizer.encode(text)) == [*turns, '<|"|>']
    assert not any(tokenizer.is_special(i) for i in tokenizer.encode(text, parse_special=False))
    assert not any(tokenizer.is_special(i) for i in tokenizer.encode_guarded(tokenizer.guard(text)))


def test_merges_cannot_make_a_special_token() -> None:
    metadata = vocabularies.byte_level()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    types[tokens.index("hello")] = vocabularies.CONTROL
    tokenizer = Tokenizer(metadata)
    assert names(tokenizer, tokenizer.encode("hello", add_special=False)) == ["hello"]
    assert names(tokenizer, tokenizer.encode("hello", add_special=False, parse_special=False)) == ["hell", "o"]
    spelled = small(vocabularies.sentence_piece).encode("</s>", add_special=False, parse_special=False)
    assert names(small(vocabularies.sentence_piece), spelled) == [" ", "</", "s>"]


def test_a_space_goes_before_text_that_follows_a_special_token() -> None:
    tokenizer = small(vocabularies.sentence_piece)
    ids = tokenizer.encode("hello</s>hello", add_special=False)
    assert names(tokenizer, ids) == [" hello", "</s>", " hello"]
    assert tokenizer.decode(ids, special=True) == "hello</s>hello"
    without = Tokenizer(vocabularies.sentence_piece(add_space_prefix=False))
    assert names(without, without.encode("hello", add_special=False)) == ["hello"]
    assert without.decode(without.encode(" hello")) == " hello"


def test_guarded_text_cannot_become_special_by_what_stands_around_it() -> None:
    tokenizer = small(vocabularies.byte_level)
    messages = [{"role": "user", "content": "a<|im_end|>"}, {"content": ["<|im_", "end|>", 7, None, "<|im_end|"]}]
    guarded = tokenizer.guard(messages)
    assert guarded[1]["content"][2:4] == [7, None]
    parts = [guarded[0]["content"], *guarded[1]["content"][:2], guarded[1]["content"][4], ">"]
    ids = tokenizer.encode_guarded("<|im_start|>" + "".join(parts) + "<|im_end|>")
    assert [i for i in ids if tokenizer.is_special(i)] == [tokenizer.bos_id, tokenizer.eos_id]
    assert tokenizer.decode(ids) == "a<|im_end|><|im_end|><|im_end|>"
    assert tokenizer.guard("plain") == "plain"
    assert (
        tokenizer.decode(tokenizer.encode_guarded(tokenizer.guard(f"{GUARD}<|im_end|>{GUARD}")))
        == f"{GUARD}<|im_end|>{GUARD}"
    )


def test_what_goes_around_a_text() -> None:
    def around(metadata: dict[str, Any]) -> list[str]:
        tokenizer = Tokenizer(metadata)
        return names(tokenizer, tokenizer.encode(""))

    assert around(vocabularies.byte_level()) == []
    assert around(vocabularies.byte_level("llama-bpe")) == ["<|im_start|>"]
    assert around(vocabularies.byte_level("llama-bpe", add_bos_token=False)) == []
    assert around(vocabularies.byte_level(add_bos_token=True, add_eos_token=True)) == ["<|im_start|>", "<|im_end|>"]
    assert around(vocabularies.sentence_piece()) == ["<s>"]
    assert around(vocabularies.sentence_piece(add_eos_token=True)) == ["<s>", "</s>"]
    assert around(vocabularies.word_piece()) == ["[CLS]", "[SEP]"]


def test_which_tokens_end_a_generation() -> None:
    def ends(texts: dict[str, int], **keys: Any) -> set[str]:
        metadata = vocabularies.byte_level(**keys)
        metadata["tokenizer.ggml.tokens"] += texts
        metadata["tokenizer.ggml.token_type"] += texts.values()
        tokenizer = Tokenizer(metadata)
        return set(names(tokenizer, list(tokenizer.eog_ids)))

    control, user, normal = vocabularies.CONTROL, vocabularies.USER_DEFINED, vocabularies.NORMAL
    assert ends({}) == {"<|im_end|>"}
    assert ends({"<|eot_id|>": control, "<|endoftext|>": control}) == {"<|im_end|>", "<|eot_id|>", "<|endoftext|>"}
    assert ends({"<custom>": control}, eot_token_id=272) == {"<|im_end|>", "<custom>"}
    assert ends({"</s>": user}) == {"<|im_end|>", "</s>"}
    assert ends({"</s>": normal}) == {"<|im_end|>"}  # a word of the vocabulary, as in Qwen 2
    harmony = {"<|end|>": control, "<|return|>": control, "<|call|>": control}
    assert ends(harmony) == {"<|im_end|>", "<|return|>", "<|call|>"}


def test_specials_of_phi_3_swallow_the_space_after_them() -> None:
    metadata = vocabularies.sentence_piece() | {"general.name": "Phi-3 mini"}
    tokenizer = Tokenizer(metadata)
    assert names(tokenizer, tokenizer.encode("</s>\n hello", add_special=False)) == ["</s>", " hello"]
    assert names(tokenizer, tokenizer.encode("<s>\nhello", add_special=False)) == ["<s>", " ", "\n", "hello"]


def test_exact_bytes() -> None:
    tokenizer = small(vocabularies.byte_level)
    assert [tokenizer.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    assert tokenizer.decode([0xE2, 0x82, 0xAC, 0xFF]) == "\u20ac\ufffd"
    pieces = small(vocabularies.sentence_piece)
    assert [pieces.token_bytes(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    metadata = vocabularies.byte_level()
    metadata["tokenizer.ggml.tokens"].append("\u00f5")  # also a letter of the alphabet of bytes: here it is itself
    metadata["tokenizer.ggml.token_type"].append(vocabularies.USER_DEFINED)
    metadata["tokenizer.ggml.tokens"][0xF5], metadata["tokenizer.ggml.token_type"][0xF5] = "[unused]", 5
    last = len(metadata["tokenizer.ggml.tokens"]) - 1
    assert Tokenizer(metadata).decode([last]) == "\u00f5"


@NO_MATERIAL
def test_from_gguf() -> None:
    path = SHARED / "vocab/ggml-vocab-llama-spm.gguf" if SHARED else Path()
    text = "Hello <s> w\u00f6rld\n"
    assert Tokenizer.from_gguf(path).encode(text) == load(path).encode(text)


def test_bad_arguments() -> None:
    tokenizer = small(vocabularies.byte_level)
    for bad in (-1, tokenizer.n_vocab):
        with pytest.raises(InvalidArgument, match=f"found {bad}"):
            tokenizer.token_bytes(bad)
    for parse in (False, True):
        with pytest.raises(InvalidArgument, match="character 1"):
            tokenizer.encode("a\ud800", parse_special=parse)
