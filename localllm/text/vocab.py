"""What a GGUF file says about its vocabulary, checked: `read(metadata) -> Vocabulary`.

Every entry is hostile until checked here; what is wrong is a FormatError that names the key, and the place in it.
What is well formed but not built (a tokenizer model or a pre-tokenizer) is an UnsupportedError that names it.
Keys: GGUF specification, "Tokenizer". Which tokens end a generation follows llama.cpp: the ids under the end keys, and
tokens known by their text, since many files name only one of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from localllm.errors import FormatError, UnsupportedError
from localllm.text.pretokenizers import BY_NAME, PreTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
TYPES = range(7)  # 0 is "undefined", 5 is "unused": both behave as normal
MODELS = ("gpt2", "llama", "gemma4", "bert")
MAX_TOKEN_BYTES = 4096

_KEY = "tokenizer.ggml."
_END_KEYS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> [e~[ <|fim_pad|> "
    "<fim-pad> <fim_pad> <|fim_repo|> <|repo_name|> <fim-repo> <reponame> <|file_sep|> "
    "<\uff5cend\u2581of\u2581sentence\uff5c>"
)
_END_TEXTS = frozenset(_ENDS.split())
# A token of these names may be an ordinary word of the vocabulary; it ends text only where its type agrees.
_WORDLIKE_ENDS = frozenset({"</s>"})
# Files give some of these the type "user defined", which text may spell: the turns of DeepSeek R1 and Command R.
_MARKS_A_TURN = re.compile("<(\\||\uff5c)[\\w\u2581 -]+\\1>")
# Formats in which <|end|> ends a message while the turn goes on.
_INNER_END = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """tokens[i] is token i as the file spells it; ids is the reverse.

    hidden: ids that text never makes unless special tokens are parsed. end_ids: any of them ends a generation.
    prefix, suffix: ids put around an encoded text when special tokens are asked for.
    space_prefix: a space is put before text (and before text that follows a special token).
    """

    model: str
    pre: PreTokenizer
    tokens: list[str]
    ids: dict[str, int]
    types: list[int]
    scores: list[float]
    merges: list[str]
    hidden: frozenset[int]
    end_ids: frozenset[int]
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    space_prefix: bool
    strip_right: bool  # special tokens swallow the white space after them, as in Phi-3
    lowercase: bool


def read(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a GGUF file's metadata. Raises FormatError or UnsupportedError, naming the key."""
    model = _string(metadata, _KEY + "model")
    if model not in MODELS:
        raise UnsupportedError(f"{_KEY}model: {model!r} is not supported; supported are {', '.join(MODELS)}")
    pre = _pre_tokenizer(metadata, model)
    tokens, numbers = _tokens(metadata)
    types = _numbers(metadata, "token_type", len(tokens)) or [NORMAL] * len(tokens)
    if not set(types) <= set(TYPES):
        at = next(i for i, kind in enumerate(types) if kind not in TYPES)
        raise FormatError(f"{_KEY}token_type[{at}]: expected a token type from 0 to 6, found {types[at]!r}")
    _check_bytes(tokens, types)
    ids = _special_ids(metadata, model, len(tokens))
    ends = _end_ids(numbers, types, ids)
    hidden = {i for i, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)}
    hidden |= {i for i, kind in enumerate(types) if kind == USER_DEFINED and _MARKS_A_TURN.fullmatch(tokens[i])}
    hidden |= {i for i in ends if types[i] != NORMAL or tokens[i] in _END_TEXTS}
    prefix, suffix = _around(metadata, model, pre, ids)
    name = str(metadata.get("general.name", "")).lower()
    return Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        ids=numbers,
        types=types,
        scores=_scores(metadata, model, len(tokens)),
        merges=_merges(metadata, model),
        hidden=frozenset(hidden),
        end_ids=ends,
        bos_id=ids.get("bos"),
        eos_id=ids.get("eos"),
        unk_id=ids.get("unknown"),
        prefix=prefix,
        suffix=suffix,
        space_prefix=model in ("llama", "gemma4") and _flag(metadata, _KEY + "add_space_prefix", model == "llama"),
        strip_right="phi-3" in name or "phi3" in name,
        lowercase=_flag(metadata, _KEY + "normalizer.lowercase", True),
    )


def _wrong(key: str, expected: str, found: object) -> NoReturn:
    raise FormatError(f"{key}: expected {expected}, found {shown(found)}")


def shown(value: object) -> str:
    """A value of the file as an error shows it: short, and in characters that every terminal prints."""
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else value[:60] + "...")
    return ascii(value) if isinstance(value, (bool, int, float, type(None))) else f"a {type(value).__name__}"


def _string(metadata: Mapping[str, Any], key: str) -> str:
    if key not in metadata:
        raise FormatError(f"missing key {key}")
    value = metadata[key]
    return value if isinstance(value, str) else _wrong(key, "a string", value)


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    return bool(value) if type(value).__name__ in ("bool", "bool_") else _wrong(key, "true or false", value)


def _plain(value: object) -> Sequence[Any] | None:
    """An array of the metadata as a plain sequence: numeric arrays come as numpy's. None for what is no array."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    return listed if isinstance(listed, (list, tuple)) else None


def _pre_tokenizer(metadata: Mapping[str, Any], model: str) -> PreTokenizer:
    if model == "gemma4":
        return BY_NAME["gemma4"]
    if model in ("llama", "bert"):
        return PreTokenizer((), byte_level=False, add_bos=True)
    key = _KEY + "pre"
    name = _string(metadata, key)
    if name not in BY_NAME:
        raise UnsupportedError(f"{key}: the pre-tokenizer {shown(name)} is not supported")
    return BY_NAME[name]


def _tokens(metadata: Mapping[str, Any]) -> tuple[list[str], dict[str, int]]:
    key = _KEY + "tokens"
    if key not in metadata:
        raise FormatError(f"missing key {key}")
    tokens = _plain(metadata[key])
    if not tokens:
        _wrong(key, "an array of strings that is not empty", metadata[key])
    _check_strings(key, tokens)
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        at = next(i for i, token in enumerate(tokens) if ids[token] != i)
        raise FormatError(f"{key}[{at}]: {shown(tokens[at])} is also token {ids[tokens[at]]}; tokens must differ")
    return list(tokens), ids


def _check_strings(key: str, strings: Sequence[Any]) -> None:
    try:
        joined = "".join(strings).encode()
    except (TypeError, UnicodeEncodeError):
        for i, text in enumerate(strings):
            if not isinstance(text, str):
                _wrong(f"{key}[{i}]", "a string", text)
            if any("\ud800" <= c <= "\udfff" for c in text):
                _wrong(f"{key}[{i}]", "valid UTF-8", text)
        raise
    if not all(strings):
        raise FormatError(f"{key}[{list(strings).index('')}]: an empty string")
    if len(joined) > MAX_TOKEN_BYTES and len(longest := max(strings, key=len)) * 4 > MAX_TOKEN_BYTES:
        size = len(longest.encode())
        if size > MAX_TOKEN_BYTES:
            where = f"{key}[{list(strings).index(longest)}]"
            raise FormatError(f"{where}: {size} bytes; at most {MAX_TOKEN_BYTES} are allowed")


def _numbers(metadata: Mapping[str, Any], name: str, count: int) -> list[Any]:
    """An optional array of one number for each token; empty when absent."""
    key = _KEY + name
    if key not in metadata:
        return []
    values = _plain(metadata[key])
    if values is None:
        _wrong(key, "an array of numbers", metadata[key])
    if len(values) != count:
        raise FormatError(f"{key}: expected {count} entries, one for each token, found {len(values)}")
    if not set(map(type, values)) <= {int, float}:
        at = next(i for i, value in enumerate(values) if type(value) not in (int, float))
        _wrong(f"{key}[{at}]", "a number", values[at])
    return list(values)


def _scores(metadata: Mapping[str, Any], model: str, count: int) -> list[float]:
    if model != "llama":
        return []
    if _KEY + "scores" not in metadata:
        raise FormatError(f"missing key {_KEY}scores")
    scores = _numbers(metadata, "scores", count)
    for i, score in enumerate(scores):
        if score != score:
            _wrong(f"{_KEY}scores[{i}]", "a number", score)
    return scores


def _merges(metadata: Mapping[str, Any], model: str) -> list[str]:
    if model not in ("gpt2", "gemma4"):
        return []
    key = _KEY + "merges"
    if key not in metadata:
        raise FormatError(f"missing key {key}")
    merges = _plain(metadata[key])
    if merges is None:
        _wrong(key, "an array of strings", metadata[key])
    if merges:
        _check_strings(key, merges)
    return list(merges)


def byte_value(token: str) -> int | None:
    """The byte that a token `<0xNN>` stands for; None where the text is not exactly that."""
    found = re.fullmatch("<0x([0-9a-fA-F]{2})>", token)
    return int(found[1], 16) if found else None


def _check_bytes(tokens: list[str], types: list[int]) -> None:
    if BYTE in types:
        for i, kind in enumerate(types):
            if kind == BYTE and byte_value(tokens[i]) is None:
                _wrong(f"{_KEY}tokens[{i}]", "a byte token <0xNN> with two hexadecimal digits", tokens[i])


def _special_ids(metadata: Mapping[str, Any], model: str, count: int) -> dict[str, int]:
    """The special ids that are used here, by the middle of their key; a default of the model where it is in range."""
    defaults = {"llama": {"bos": 1, "eos": 2, "unknown": 0}, "bert": {"cls": 101, "seperator": 102, "unknown": 100}}
    ids = {name: i for name, i in defaults.get(model, {}).items() if i < count}
    for name in ("bos", "unknown", "cls", "seperator", *_END_KEYS):  # the format spells "seperator"
        key = f"{_KEY}{name}_token_id"
        if key not in metadata:
            continue
        value = metadata[key]
        value = value.item() if hasattr(value, "item") else value
        if type(value) is not int or not 0 <= value < count:
            _wrong(key, f"a token id from 0 to {count - 1}", value)
        ids[name] = value
    return ids


def _end_ids(numbers: Mapping[str, int], types: list[int], special: Mapping[str, int]) -> frozenset[int]:
    ends = {special[key] for key in _END_KEYS if key in special}
    for text in _END_TEXTS & numbers.keys():
        if not (text in _WORDLIKE_ENDS and types[numbers[text]] == NORMAL):
            ends.add(numbers[text])
    if any(pair <= numbers.keys() for pair in _INNER_END):
        ends.discard(numbers.get("<|end|>", -1))
    return frozenset(ends)


def _around(
    metadata: Mapping[str, Any], model: str, pre: PreTokenizer, ids: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text, where the file asks for them."""
    if model == "bert":
        first, last = ids.get("bos", ids.get("cls")), ids.get("seperator")
    else:
        first, last = ids.get("bos"), ids.get("eos")
    add_first = _flag(metadata, _KEY + "add_bos_token", pre.add_bos)
    add_last = _flag(metadata, _KEY + "add_eos_token", model == "bert")
    for key, asked, token in (("bos", add_first, first), ("eos", add_last, last)):
        if asked and token is None and f"{_KEY}add_{key}_token" in metadata:
            raise FormatError(f"{_KEY}add_{key}_token is true, but there is no key {_KEY}{key}_token_id")
    prefix = (first,) if add_first and first is not None else ()
    suffix = (last,) if add_last and last is not None else ()
    return prefix, suffix
