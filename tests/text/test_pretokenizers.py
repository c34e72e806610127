"""Every pre-tokenizer cuts text as another regex engine does with the same patterns."""

import random
import re

import pytest
from tokenizers import Regex, pre_tokenizers

from localllm.errors import FormatError, UnsupportedError
from localllm.text.pretokenizers import BY_NAME
from localllm.text.tokenizer import Tokenizer
from tests.text import vocabularies

regex = pytest.importorskip("regex", reason="transformers brings the package regex")

ALPHABET = (
    *"aZq'sTR 12\n\r\t.,!?/-_<>|()$+~",
    *("'s", "'LL", "  ", "    ", "\r\n", "IMGIMGABZ", "<sentinel:1>", "1234567"),
    *"\u00e9\u00c9\u00df\u01c5\u02b0\u0301\u0416\u0436\u4e2d\u6587\u3042\u30ab\ud55c\u0e01\u0939\u093f\u0662\u2167\u20ac\u3000\u3002\uff01\uff41\u2026\U0001f600",
)


def pieces_by_regex(patterns: tuple[str, ...], text: str) -> list[str]:
    pieces = [text]
    for pattern in patterns:
        plain = re.sub(r"\\x\{([0-9a-f]+)\}", lambda m: re.escape(chr(int(m[1], 16))), pattern)
        compiled = regex.compile(plain, regex.V1)
        pieces = [part for piece in pieces for part in cut(compiled, piece)]
    return pieces


def cut(compiled: "re.Pattern[str]", text: str) -> list[str]:
    parts, at = [], 0
    for match in compiled.finditer(text):
        parts += [text[at : match.start()], match.group()]
        at = match.end()
    return [part for part in [*parts, text[at:]] if part]


@pytest.mark.parametrize("name", BY_NAME)
def test_cuts_like_another_engine(name: str) -> None:
    patterns = BY_NAME[name].patterns
    splits = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns])
    seed = 7
    random_source = random.Random(seed)
    for _ in range(300):
        text = "".join(random_source.choices(ALPHABET, k=random_source.randint(1, 14)))
        found = [piece for piece, _ in splits.pre_tokenize_str(text)]
        assert found == pieces_by_regex(patterns, text), f"seed {seed}, text {text!r}"


@pytest.mark.parametrize("name", [name for name, pre in BY_NAME.items() if pre.byte_level])
def test_every_name_makes_a_tokenizer(name: str) -> None:
    tokenizer = Tokenizer(vocabularies.byte_level(name))
    text = "hello world, it's 12345 \u00e9t\u00e9!\n\n  \u4e2d\u6587"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_in_groups_from_the_right() -> None:
    for name in ("afmoe", "tiny_aya", "superbpe"):
        assert pieces_by_regex(BY_NAME[name].patterns[:2], "1234567") == ["1", "234", "567"], name


def test_other_names_are_refused_by_name() -> None:
    for name in ("whitespace", "no-such", ""):
        with pytest.raises(UnsupportedError, match=rf"tokenizer\.ggml\.pre: the pre-tokenizer '{name}'"):
            Tokenizer(vocabularies.byte_level(name))
    metadata = vocabularies.byte_level()
    del metadata["tokenizer.ggml.pre"]
    with pytest.raises(FormatError, match=r"missing key tokenizer\.ggml\.pre"):
        Tokenizer(metadata)
    for model in ("t5", "rwkv", "plamo2", "none", "whitespace"):
        with pytest.raises(UnsupportedError, match=rf"tokenizer\.ggml\.model: '{model}'"):
            Tokenizer(vocabularies.byte_level(model=model))
