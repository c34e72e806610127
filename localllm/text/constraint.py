"""Answers that must have a form: a JSON schema, a regular expression or a grammar, held to by masking tokens.

    compiler = Compiler(tokenizer, n_vocab)
    form = compiler.form(json_schema={"type": "object"})
    mask = form()                                              # an engine.sequence.Mask for one answer

llguidance computes which tokens may come next. A mask fails closed: when the library gives up, no token is allowed, and
the request ends with an error rather than with an answer of another form. JSON is written with ", " and ": " and no
other white space: a model that may write white space freely sometimes writes nothing else.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from localllm.errors import InvalidArgument
from localllm.text.reasoning import Splitter
from localllm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_SOURCE = 256 << 10  # characters of a grammar, or of a schema as JSON
MOST_PATTERN = 4 << 10
MOST_DEPTH = 64
MOST_NODES = 20_000
_REMEMBERED = 16  # compiled forms
_JSON: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Compiler:
    """Thread-safe. What it needs of the vocabulary is made when the first form is compiled, which takes up to a second
    for a large vocabulary; forms are remembered."""

    def __init__(self, tokenizer: Tokenizer, n_vocab: int) -> None:
        self._tokenizer, self._n_vocab = tokenizer, n_vocab
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def form(
        self,
        *,
        json_schema: str | Mapping[str, Any] | None = None,
        grammar: str | None = None,
        after: str = "",
    ) -> Callable[[], Constraint]:
        """What makes a mask for each answer. grammar: in GBNF or in Lark's syntax (a rule named root or start), or a
        regular expression between slashes. after: the form begins after this text; what comes before is free.
        InvalidArgument names the argument and says what is wrong with it."""
        with self._lock:
            source = _json_form(json_schema) if json_schema is not None else _grammar_form(grammar or "")
            name = "grammar" if json_schema is None else "json_schema"
            matcher = self._remembered(source, name)
        return lambda: Constraint(matcher.deep_copy(), self._token_bytes, after.encode())

    def calls(self, mark: str, schema: Mapping[str, Any], splitter: Callable[[], Splitter]) -> Callable[[], CallGuard]:
        """What makes a mask for each answer: free text in which every JSON value behind `mark`, outside of reasoning,
        fits a schema. InvalidArgument says what is wrong with that."""
        with self._lock:
            matcher = self._remembered(_call_form(schema), "tools")
        return lambda: CallGuard(matcher, self._token_bytes, mark, splitter())

    def _remembered(self, source: str, name: str) -> LLMatcher:
        matcher = self._known.pop(source, None) or self._compile(source, name)
        self._known[source] = matcher
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return matcher

    def _compile(self, source: str, name: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        if self._vocabulary is None:
            self._vocabulary = _vocabulary(self._tokenizer, self._n_vocab)
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self._vocabulary, source, log_level=0, limits=limits)
        if matcher.is_error():
            raise InvalidArgument(f"{name}: {matcher.get_error().strip()[:500]}")
        return matcher

    def _token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token) if token < self._tokenizer.n_vocab else b""


class Constraint:
    """The form of one answer, as far as the answer has come. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, token_bytes: Callable[[int], bytes], after: bytes) -> None:
        self._matcher, self._token_bytes = matcher, token_bytes
        self._after, self._before = after, b""

    def fill(self, bits: memoryview) -> None:
        _fill(None if self._after else self._matcher, bits)

    def accept(self, token: int) -> None:
        if not self._after:
            self._matcher.consume_token(token)  # False puts it into a state of error, which fill() meets
            return
        self._before = (self._before + self._token_bytes(token))[-len(self._after) - 64 :]
        if self._after in self._before:
            self._after = b""


class CallGuard:
    """The calls in one answer, as far as it has come. Used by one thread at a time."""

    def __init__(self, pattern: LLMatcher, token_bytes: Callable[[int], bytes], mark: str, splitter: Splitter) -> None:
        self._pattern, self._token_bytes, self._mark, self._splitter = pattern, token_bytes, mark, splitter
        self._call: LLMatcher | None = None  # while one is written
        self._before = ""

    def fill(self, bits: memoryview) -> None:
        _fill(self._call, bits)

    def accept(self, token: int) -> None:
        if self._call is not None:
            self._call.consume_token(token)
            if self._call.is_accepting():
                self._call = None
            return
        text = self._token_bytes(token).decode("utf-8", "replace")
        said = "".join(piece.text for piece in self._splitter.push(text) if not piece.reasoning)
        _, mark, rest = (self._before + said).rpartition(self._mark)
        if mark and not rest.strip():
            self._call, self._before = self._pattern.deep_copy(), ""
        else:  # a token in which more than the mark stands is not held any more
            self._before = rest[-len(self._mark) :]


def _fill(matcher: LLMatcher | None, bits: memoryview) -> None:
    """Without a matcher everything is allowed."""
    target = np.frombuffer(bits, np.uint8)
    if matcher is None:
        target[:] = 255
        return
    try:
        matcher.unsafe_compute_mask_ptr(target.ctypes.data, target.nbytes)
        failed = matcher.is_error()  # the library would then allow the answer to end
    except BaseException:  # its panics are no Exception, and would end the engine
        failed = True
    if failed:
        target[:] = 0


def _json_form(schema: str | Mapping[str, Any]) -> str:
    from llguidance import LLMatcher

    if isinstance(schema, str):
        if len(schema) > MOST_SOURCE:
            raise InvalidArgument(f"json_schema has {len(schema)} characters; at most {MOST_SOURCE} are allowed")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"json_schema is not JSON: {error}") from None
    _check_size(schema)
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON)


def _call_form(schema: Mapping[str, Any]) -> str:
    from llguidance import LLMatcher

    _check_size(schema)
    text = json.dumps({**schema, "x-guidance": _JSON})
    if len(text) > MOST_SOURCE:
        raise InvalidArgument(f"tools have {len(text)} characters; at most {MOST_SOURCE} are allowed")
    return LLMatcher.grammar_from_lark(f"start: /[ \\n]?/ call /[ \\n]?/\ncall: %json {text}")


def _check_size(schema: Any) -> None:
    """Bounds on what will be compiled, found without recursion."""
    level, nodes, depth = [schema], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if depth > MOST_DEPTH or nodes > MOST_NODES:
            raise InvalidArgument(f"json_schema is too large: at most {MOST_NODES} values, nested {MOST_DEPTH} deep")
        inner = [value.values() if isinstance(value, Mapping) else value for value in level
                 if isinstance(value, (Mapping, list, tuple))]  # fmt: skip
        level = [item for values in inner for item in values]


def _grammar_form(grammar: str) -> str:
    from llguidance import LLMatcher

    if len(grammar) > MOST_SOURCE:
        raise InvalidArgument(f"grammar has {len(grammar)} characters; at most {MOST_SOURCE} are allowed")
    if len(grammar) > 1 and grammar[0] == grammar[-1] == "/":
        if len(grammar) > MOST_PATTERN:
            raise InvalidArgument(f"grammar: a pattern has at most {MOST_PATTERN} characters")
        return LLMatcher.grammar_from_regex(grammar[1:-1])
    if "::=" in grammar:
        from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

        try:
            grammar = gbnf_to_lark(grammar)
        except (GbnfToLarkError, RecursionError, ValueError, IndexError, KeyError) as error:
            raise InvalidArgument(f"grammar: not GBNF: {error}") from None
    return LLMatcher.grammar_from_lark(grammar)


class _Words:
    """A vocabulary as llguidance reads it; `special_token_ids` are never part of a text."""

    def __init__(self, tokenizer: Tokenizer, n_vocab: int) -> None:
        known = min(n_vocab, tokenizer.n_vocab)
        self.eos_token_id = min(tokenizer.eog_ids, default=tokenizer.eos_id or 0)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in range(known)] + [b""] * (n_vocab - known)
        self.special_token_ids = [i for i in range(known) if tokenizer.is_special(i)]
        self._tokenizer = tokenizer
        self._bytes: dict[int, int] = {}

    def __call__(self, text: str) -> list[int]:
        """The ids of a text that goes on where another ended: without the space that some vocabularies begin with."""
        if not self._tokenizer.adds_space:
            return self._tokenizer.encode(text, add_special=False, parse_special=False)
        ids = self._tokenizer.encode("\n" + text, add_special=False, parse_special=False)
        before = 0  # bytes of the ids left out: a space and the line end
        while before < 2 and ids:
            before += len(self.tokens[ids.pop(0)])
        return ids if before == 2 else [self._byte(byte) for byte in text.encode()]

    def _byte(self, byte: int) -> int:
        return self._bytes.setdefault(byte, self.tokens.index(bytes([byte])))


def _vocabulary(tokenizer: Tokenizer, n_vocab: int) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    words = _Words(tokenizer, n_vocab)
    ends = sorted(tokenizer.eog_ids) or [words.eos_token_id]
    return LLTokenizer(TokenizerWrapper(words), n_vocab=n_vocab, eos_token=ends)
