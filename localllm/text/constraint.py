"""Answers that must have a form: a JSON schema, a regular expression or a grammar, held to by masking tokens.

    compiler = Compiler(tokenizer, n_vocab)
    form = compiler.form(json_schema={"type": "object"})
    mask = form()                                              # an engine.sequence.Mask for one answer

llguidance computes which tokens may come next. A mask fails closed: when the library gives up, no token is allowed, and
the request ends with an error rather than with an answer of another form. What cannot be begun, or would take long in
every step, is refused when it is compiled; what takes too long or too much memory to compile is found out in a child
process (form_child.py).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidArgument
from localllm.params import Grammar
from localllm.text import forms, harmony, schemas
from localllm.text.child import Child
from localllm.text.reasoning import Splitter
from localllm.text.tokenizer import Tokenizer
from localllm.text.tools import answer_or_calls, arguments_schema, call_schema, function_of

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_REMEMBERED = 16  # compiled forms
# All sequences of a step, or of a pass, wait for its masks: with these one takes up to about 15 ms, whatever the form,
# and less than one as a rule. Enums of 12,000 words, 480 properties that may be left out, 1,900 alternatives of a
# grammar and letters of all alphabets stay within them; the library's own step_lexer_fuel bounds what is left.
_LIMITS: Any = {"initial_lexer_fuel": 200_000, "step_max_items": 10_000, "verbose_errors": False}


class Compiler:
    """Thread-safe. What it needs of the vocabulary is made by get_ready(), or when the first form is compiled: up to a
    second for a large one, in which no other thread gets a turn. Forms are remembered."""

    def __init__(self, tokenizer: Tokenizer, n_vocab: int) -> None:
        self._tokenizer, self._n_vocab = tokenizer, n_vocab
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def get_ready(self) -> None:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _vocabulary(self._tokenizer, self._n_vocab)

    def form(
        self,
        *,
        json_schema: str | Mapping[str, Any] | None = None,
        grammar: str | Grammar | None = None,
        calls: Sequence[Mapping[str, Any]] = (),
        after: str = "",
        channels: bool = False,
    ) -> Callable[[], Constraint]:
        """What makes a mask for each answer: of one of the forms, or a call of one of some functions. grammar: a text
        alone is GBNF or Lark's syntax (a rule named root or start), or a regular expression between slashes. after: the
        form begins after this text; what comes before is free. channels: the answer is written as gpt-oss does.
        InvalidArgument names the argument and says what is wrong with it."""
        parts: dict[str, forms.Part] = {}  # by what errors call them; first of all the form, if there is one
        if grammar is not None:
            with schemas.about("grammar"):
                parts["grammar"] = forms.grammar_part(grammar)
        elif json_schema is not None:
            with schemas.about("json_schema"):
                json_schema = schemas.parsed(json_schema)
                parts["json_schema"] = forms.schema_part(schemas.ready(json_schema))
        form = next(iter(parts.values()), None)
        arguments = {function_of(tool)["name"]: forms.schema_part(arguments_schema(tool)) for tool in calls}
        if channels:
            source = harmony.answer(self._tokenizer, form, arguments)
        elif calls:
            either = call_schema(calls) if form is None else answer_or_calls(json_schema, calls)
            source = forms.whole(forms.schema_part(either))
        else:
            source = forms.whole(*parts.values())
        parts |= {f'function "{name}": parameters': part for name, part in arguments.items()}
        matcher = self._remembered(source, parts)
        return lambda: Constraint(matcher.deep_copy(), self._tokenizer, after, self._ids)

    def calls(self, mark: str, schema: Mapping[str, Any], splitter: Callable[[], Splitter]) -> Callable[[], CallGuard]:
        """What makes a mask for each answer: free text in which every JSON value behind `mark`, outside of reasoning,
        fits a schema. InvalidArgument says what is wrong with that."""
        matcher = self._remembered(forms.call_in_text(schema), {})
        return lambda: CallGuard(matcher, self._token_bytes, mark, splitter())

    def _remembered(self, source: str, parts: Mapping[str, forms.Part]) -> LLMatcher:
        """A whole, compiled. Its parts must be right by themselves, too: only so do errors name the one that is not,
        and is all of them known to have a beginning."""
        with self._lock:
            matcher = self._known.pop(source, None) or self._compiled(source, parts)
            self._known[source] = matcher
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return matcher

    def _compiled(self, source: str, parts: Mapping[str, forms.Part]) -> LLMatcher:
        for name, part in parts.items():
            with schemas.about(name):
                matcher = self._compile(alone := forms.whole(part))
            if alone == source:
                return matcher
        with schemas.about("calls"):
            return self._compile(source)

    def _compile(self, source: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        _CHILD.ask(json.dumps({"source": source, "limits": _LIMITS}).encode())
        if self._vocabulary is None:
            self._vocabulary = _vocabulary(self._tokenizer, self._n_vocab)
        matcher = LLMatcher(self._vocabulary, source, log_level=0, limits=LLParserLimits(**_LIMITS))
        if matcher.is_error():
            raise InvalidArgument(_told(matcher.get_error()))
        self._check_beginning(matcher)
        return matcher

    def _check_beginning(self, matcher: LLMatcher) -> None:
        """InvalidArgument where no answer can begin. The first two masks tell of all that is known to go wrong at once:
        nothing fits, there is no end to it, or it takes too long. What the first finds out is kept with the matcher."""
        first = self._allowed(matcher)
        for token in {int(first[0]), int(first[first.size // 2]), int(first[-1])} - self._tokenizer.eog_ids:
            begun = matcher.deep_copy()
            begun.consume_token(token)
            self._allowed(begun)

    def _allowed(self, matcher: LLMatcher) -> NDArray[np.intp]:
        """The tokens that may come next. InvalidArgument if there are none."""
        bits = np.zeros(-(-self._n_vocab // 32) * 4, np.uint8)
        if not _fill(matcher, bits.data):
            raise InvalidArgument(_told(matcher.get_error()))
        return np.flatnonzero(np.unpackbits(bits, bitorder="little")[: self._n_vocab])

    def _ids(self, text: bytes) -> list[int]:
        assert self._vocabulary is not None
        return list(self._vocabulary.tokenize_bytes(text))

    def _token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token) if token < self._tokenizer.n_vocab else b""


class Constraint:
    """The form of one answer, as far as the answer has come. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer, after: str, ids: Callable[[bytes], list[int]]) -> None:
        self.closed = False
        self._matcher, self._tokenizer, self._ids = matcher, tokenizer, ids
        self._after, self._before = after.encode(), b""

    def fill(self, bits: memoryview) -> None:
        if not self._after:
            self.closed = not _fill(self._matcher, bits)
            return
        _fill(None, bits)
        for token in self._tokenizer.eog_ids:  # an answer that ended here would have no form
            bits[token // 8] &= ~(1 << token % 8) & 255

    def accept(self, token: int) -> None:
        if not self._after:
            self._matcher.consume_token(token)  # False puts it into a state of error, which fill() meets
            return
        shown = self._tokenizer.shown_bytes(token) if token < self._tokenizer.n_vocab else b""
        before, mark, rest = (self._before + shown).partition(self._after)
        self._before = before[-len(self._after) :]
        if mark:
            self._after = b""
            if rest := rest.lstrip():  # of the token that ended the mark
                self._matcher.consume_tokens(self._ids(rest))


class CallGuard:
    """The calls in one answer, as far as it has come. Used by one thread at a time."""

    def __init__(self, pattern: LLMatcher, token_bytes: Callable[[int], bytes], mark: str, splitter: Splitter) -> None:
        self.closed = False
        self._pattern, self._token_bytes, self._mark, self._splitter = pattern, token_bytes, mark, splitter
        self._call: LLMatcher | None = None  # while one is written
        self._before = ""

    def fill(self, bits: memoryview) -> None:
        self.closed = not _fill(self._call, bits)

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


def _fill(matcher: LLMatcher | None, bits: memoryview) -> bool:
    """Whether any token is allowed. Without a matcher all are."""
    target = np.frombuffer(bits, np.uint8)
    if matcher is None:
        target[:] = 255
        return True
    try:
        matcher.unsafe_compute_mask_ptr(target.ctypes.data, target.nbytes)
        failed = matcher.is_error()  # the library would then allow the answer to end
    except BaseException:  # its panics are no Exception, and would end the engine
        failed = True
    if failed:
        target[:] = 0
    return not failed and bool(target.any())


_COSTLY = ("too many", "items; max is", "too big")  # in what llguidance says beyond its limits


def _told(error: str) -> str:
    """What a person is told of an error of llguidance's."""
    if any(words in error.lower() for words in _COSTLY):
        return f"the form is too large, or has no end ({_first_line(error)})"
    if not error.strip() or error.startswith("NoExtensionBias"):
        return "no answer fits this form"
    return error.strip()[:500]


def _first_line(error: str) -> str:
    return error.strip().partition("\n")[0][:200]


def _failed(how: str) -> InvalidArgument:
    return InvalidArgument(f"the form is too large (to compile it {how})")


_CHILD = Child("form_child.py", ("llguidance",), "tries out the forms of answers", _failed)


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
