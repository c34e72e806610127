"""Vocabularies that contradict themselves: each is refused with a sentence that names the key, or works."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from localllm.errors import FormatError, InvalidArgument, LocalLLMError, UnsupportedError
from localllm.text.tokenizer import Tokenizer
from tests.text.vocabularies import byte_level, plain_bpe, sentence_piece, word_piece

Metadata = dict[str, Any]
KEY = "tokenizer.ggml."


def given(make: Callable[[], Metadata], **keys: Any) -> Metadata:
    return make() | {KEY + key: value for key, value in keys.items()}


def without(make: Callable[[], Metadata], key: str) -> Metadata:
    metadata = make()
    del metadata[KEY + key]
    return metadata


def with_item(make: Callable[[], Metadata], key: str, at: int, value: Any) -> Metadata:
    metadata = make()
    metadata[KEY + key][at] = value
    return metadata


def longer(make: Callable[[], Metadata], key: str, *values: Any) -> Metadata:
    metadata = make()
    metadata[KEY + key] = [*metadata[KEY + key], *values]
    return metadata


def token_at(make: Callable[[], Metadata], at: int, text: Any) -> Metadata:
    return with_item(make, "tokens", at, text)


BAD: list[tuple[Metadata, str]] = [
    # what the file must say at all
    ({}, "missing key tokenizer.ggml.model"),
    (given(byte_level, model=3), "tokenizer.ggml.model: expected a string, found 3"),
    (given(byte_level, model=["gpt2"]), "tokenizer.ggml.model: expected a string"),
    (given(byte_level, pre=3), "tokenizer.ggml.pre: expected a string, found 3"),
    (without(byte_level, "pre"), "missing key tokenizer.ggml.pre"),
    (without(byte_level, "tokens"), "missing key tokenizer.ggml.tokens"),
    (without(byte_level, "merges"), "missing key tokenizer.ggml.merges"),
    (without(plain_bpe, "merges"), "missing key tokenizer.ggml.merges"),
    (without(sentence_piece, "scores"), "missing key tokenizer.ggml.scores"),
    (without(word_piece, "tokens"), "missing key tokenizer.ggml.tokens"),
    # tokens
    (given(byte_level, tokens=[]), "tokenizer.ggml.tokens: expected an array of strings"),
    (given(byte_level, tokens="abc"), "tokenizer.ggml.tokens: expected an array of strings"),
    (given(byte_level, tokens=7), "tokenizer.ggml.tokens: expected an array of strings"),
    (given(byte_level, tokens=np.arange(268)), "tokenizer.ggml.tokens[0]: expected a string, found 0"),
    (token_at(byte_level, 5, ""), "tokenizer.ggml.tokens[5]: an empty string"),
    (token_at(sentence_piece, 270, ""), "tokenizer.ggml.tokens[270]: an empty string"),
    (token_at(byte_level, 5, None), "tokenizer.ggml.tokens[5]: expected a string, found None"),
    (token_at(byte_level, 5, b"x"), "tokenizer.ggml.tokens[5]: expected a string"),
    (token_at(byte_level, 5, "\udcff"), "tokenizer.ggml.tokens[5]: expected valid UTF-8"),
    (token_at(byte_level, 5, "a"), "is also token"),
    (token_at(sentence_piece, 1, "<unk>"), "tokenizer.ggml.tokens[0]: '<unk>' is also token 1"),
    (token_at(word_piece, 5, "[CLS]"), "tokens must differ"),
    (token_at(byte_level, 5, "x" * 4097), "tokenizer.ggml.tokens[5]: 4097 bytes; at most 4096"),
    (token_at(sentence_piece, 270, "\U0001f600" * 2000), "tokenizer.ggml.tokens[270]: 8000 bytes"),
    (token_at(byte_level, 5, f" \0{byte_level()[KEY + 'bos_token_id']}"), "spelled like a placeholder"),
    (token_at(word_piece, 9, "##x") | {KEY + "tokens": [*word_piece()[KEY + "tokens"][:8], "\u2581##h", "h"]},
     "the same piece of a word"),
    # bytes
    (token_at(sentence_piece, 3, "<0x-1>"), "tokenizer.ggml.tokens[3]: expected a byte token <0xNN>"),
    (token_at(sentence_piece, 3, "<0x0>"), "expected a byte token"),
    (token_at(sentence_piece, 3, "<0x000>"), "expected a byte token"),
    (token_at(sentence_piece, 3, "<0xGG>"), "expected a byte token"),
    (token_at(sentence_piece, 3, "<0x+1>"), "expected a byte token"),
    (token_at(sentence_piece, 3, "<0x 1>"), "expected a byte token"),
    (token_at(sentence_piece, 3, "<0x\u0661\u0662>"), "expected a byte token"),
    (token_at(plain_bpe, 4, "zero"), "tokenizer.ggml.tokens[4]: expected a byte token"),
    # arrays that go with the tokens
    (longer(byte_level, "token_type", 1), "token_type: expected 272 entries, one for each token, found 273"),
    (given(byte_level, token_type=[1]), "tokenizer.ggml.token_type: expected 272 entries"),
    (given(byte_level, token_type=1), "tokenizer.ggml.token_type: expected an array of numbers"),
    (given(byte_level, token_type="1" * 272), "tokenizer.ggml.token_type: expected an array of numbers"),
    (given(byte_level, token_type=["1"] * 272), "tokenizer.ggml.token_type[0]: expected a number"),
    (given(byte_level, token_type=[True] * 272), "tokenizer.ggml.token_type[0]: expected a number"),
    (with_item(byte_level, "token_type", 9, 7), "token_type[9]: expected a token type from 0 to 6, found 7"),
    (with_item(byte_level, "token_type", 9, -1), "token type from 0 to 6, found -1"),
    (with_item(byte_level, "token_type", 9, 1.5), "token type from 0 to 6, found 1.5"),
    (given(byte_level, token_type=np.full(272, 2**31 - 1, np.int32)), "found 2147483647"),
    (longer(sentence_piece, "scores", 0.0), "tokenizer.ggml.scores: expected"),
    (given(sentence_piece, scores=[]), "tokenizer.ggml.scores: expected"),
    (given(sentence_piece, scores=np.zeros(3, np.float32)), "tokenizer.ggml.scores: expected"),
    (with_item(sentence_piece, "scores", 4, "high"), "tokenizer.ggml.scores[4]: expected a number"),
    (with_item(sentence_piece, "scores", 4, float("nan")), "tokenizer.ggml.scores[4]: expected a number, found nan"),
    # merges
    (given(byte_level, merges="h e"), "tokenizer.ggml.merges: expected an array of strings"),
    (given(byte_level, merges=[1, 2]), "tokenizer.ggml.merges[0]: expected a string, found 1"),
    (longer(byte_level, "merges", "q z"), "tokenizer.ggml.merges[12]: 'qz' is not in tokenizer.ggml.tokens"),
    (longer(byte_level, "merges", "absent h"), "tokenizer.ggml.merges[12]: 'absent' is not in"),
    (longer(byte_level, "merges", "h " + "z" * 4000), "zzz...' is not in tokenizer.ggml.tokens"),
    (longer(byte_level, "merges", "h absent"), "tokenizer.ggml.merges[12]: 'absent' is not in"),
    (longer(byte_level, "merges", "hello"), "merges[12]: expected two tokens and a space, found 'hello'"),
    (longer(byte_level, "merges", ""), "tokenizer.ggml.merges[12]: an empty string"),
    (longer(byte_level, "merges", " "), "tokenizer.ggml.merges[12]: expected two tokens and a space"),
    (longer(byte_level, "merges", "h "), "tokenizer.ggml.merges[12]: '' is not in"),
    (longer(byte_level, "merges", "h e l"), "tokenizer.ggml.merges[12]: 'e l' is not in"),
    (longer(byte_level, "merges", "h \udcfe"), "tokenizer.ggml.merges[12]: expected valid UTF-8"),
    (longer(byte_level, "merges", "h " + "e" * 5000), "tokenizer.ggml.merges[12]: 5002 bytes"),
    (longer(plain_bpe, "merges", "h w"), "tokenizer.ggml.merges[6]: 'hw' is not in"),
    # ids
    (given(byte_level, bos_token_id=272), "tokenizer.ggml.bos_token_id: expected a token id from 0 to 271, found 272"),
    (given(byte_level, bos_token_id=-1), "tokenizer.ggml.bos_token_id: expected a token id from 0 to 271, found -1"),
    (given(byte_level, eos_token_id=2**32 - 1), "tokenizer.ggml.eos_token_id: expected a token id"),
    (given(byte_level, eos_token_id=2**64 - 1), "tokenizer.ggml.eos_token_id: expected a token id"),
    (given(byte_level, eos_token_id="2"), "tokenizer.ggml.eos_token_id: expected a token id from 0 to 271, found '2'"),
    (given(byte_level, eos_token_id=True), "tokenizer.ggml.eos_token_id: expected a token id"),
    (given(byte_level, eos_token_id=1.0), "tokenizer.ggml.eos_token_id: expected a token id"),
    (given(byte_level, eos_token_id=[1]), "tokenizer.ggml.eos_token_id: expected a token id"),
    (given(byte_level, eot_token_id=9999), "tokenizer.ggml.eot_token_id: expected a token id"),
    (given(byte_level, eom_token_id=9999), "tokenizer.ggml.eom_token_id: expected a token id"),
    (given(sentence_piece, unknown_token_id=9999), "tokenizer.ggml.unknown_token_id: expected a token id"),
    (given(word_piece, cls_token_id=9999), "tokenizer.ggml.cls_token_id: expected a token id"),
    (given(word_piece, seperator_token_id=9999), "tokenizer.ggml.seperator_token_id: expected a token id"),
    (without(word_piece, "unknown_token_id"), "missing key tokenizer.ggml.unknown_token_id"),
    # flags
    (given(byte_level, add_bos_token=1), "tokenizer.ggml.add_bos_token: expected true or false, found 1"),
    (given(byte_level, add_eos_token="yes"), "tokenizer.ggml.add_eos_token: expected true or false, found 'yes'"),
    (given(sentence_piece, add_space_prefix=0), "tokenizer.ggml.add_space_prefix: expected true or false"),
    (without(byte_level, "bos_token_id") | {KEY + "add_bos_token": True}, "is no key tokenizer.ggml.bos_token_id"),
    (without(byte_level, "eos_token_id") | {KEY + "add_eos_token": True}, "is no key tokenizer.ggml.eos_token_id"),
]  # fmt: skip


@pytest.mark.parametrize(("metadata", "sentence"), BAD, ids=range(len(BAD)))
def test_a_bad_vocabulary_is_refused_by_name(metadata: Metadata, sentence: str) -> None:
    with pytest.raises(FormatError) as caught:
        Tokenizer(metadata)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400
    str(caught.value).encode()  # can be printed


def test_odd_vocabularies_that_work() -> None:
    odd = [
        without(byte_level, "token_type"),
        given(byte_level, merges=[]),
        given(byte_level, token_type=np.array(byte_level()[KEY + "token_type"], np.int32)),
        given(sentence_piece, scores=np.array(sentence_piece()[KEY + "scores"], np.float32)),
        given(sentence_piece, scores=[0.0] * len(sentence_piece()[KEY + "tokens"])),
        given(byte_level, bos_token_id=np.uint32(268), add_bos_token=np.bool_(True)),
        longer(byte_level, "merges", "h e", "h e"),
    ]
    for metadata in odd:
        tokenizer = Tokenizer(metadata)
        assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"


def test_mutants_are_refused_or_work() -> None:
    """Random changes of values: nothing but our own errors, and what loads also encodes and decodes."""
    seed = 11
    source = random.Random(seed)
    junk = (None, -1, 2**40, 1.5, "", "h e", "<0x41>", "\udc80", " ", [], {}, True, "\u2581", "</s>", b"", float("inf"))
    refused = 0
    for count in range(1500):
        metadata = source.choice((byte_level, sentence_piece, plain_bpe, word_piece))()
        for _ in range(source.randint(1, 3)):
            key = source.choice(list(metadata))
            value = metadata[key]
            if isinstance(value, list) and value and source.random() < 0.8:
                at = source.randrange(len(value))
                value[at] = source.choice([*junk, source.choice(value)])
            else:
                metadata[key] = source.choice(junk)
        try:
            tokenizer = Tokenizer(metadata)
            for text in ("hello </s> \u20ac<|im_end|>\n", "\U0001f600"):
                tokenizer.decode(tokenizer.encode(text))
                tokenizer.encode_guarded(tokenizer.guard(text))
        except (FormatError, UnsupportedError):
            refused += 1
        except (InvalidArgument, LocalLLMError) as error:
            raise AssertionError(f"seed {seed}, mutant {count}: {error}") from error
    assert 700 < refused < 1500
