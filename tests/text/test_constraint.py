"""Forms of answers: whatever a model would like to say, what comes out is judged by jsonschema and by re."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from localllm.bundled import demo_model_path
from localllm.errors import InvalidArgument
from localllm.memory import used_memory
from localllm.params import Grammar
from localllm.text import constraint
from localllm.text.constraint import CallGuard, Compiler, Constraint
from localllm.text.reasoning import FAMILIES, ReasoningSplitter
from localllm.text.tokenizer import Tokenizer
from tests.conftest import shared_folder
from tests.text.vocabularies import byte_level

_SHARED = shared_folder()
VOCABULARIES = [demo_model_path(), *(sorted((_SHARED / "vocab").glob("*.gguf")) if _SHARED else [])]

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
     "age": {"type": "integer", "minimum": 0, "maximum": 130}}, "required": ["name", "age"],
     "additionalProperties": False},
    {"enum": ["red", "green", 3, None]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    {"anyOf": [{"const": "a b"}, {"type": "number", "minimum": -1, "maximum": 1}]},
    {"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer", "maximum": 9, "minimum": 0},
     "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"],
     "additionalProperties": False}}, "$ref": "#/$defs/node"},
    {"type": "string", "pattern": "^[a-f]{2,6}$"},
    {"type": "string", "format": "date"},
    {"type": "object", "properties": {"ünïcode \" key": {"type": "null"}}, "required": ["ünïcode \" key"],
     "additionalProperties": False},
]  # fmt: skip


@pytest.fixture(scope="module", params=VOCABULARIES, ids=lambda path: path.stem)
def vocabulary(request: pytest.FixtureRequest) -> tuple[Tokenizer, Compiler]:
    path: Path = request.param
    tokenizer = Tokenizer.from_gguf(path)
    return tokenizer, Compiler(tokenizer, tokenizer.n_vocab + 5)  # models may have more rows than names


def allowed(mask: Constraint | CallGuard, n_vocab: int) -> np.ndarray:
    bits = np.full(-(-n_vocab // 32), 0x5A5A5A5A, np.uint32)
    mask.fill(memoryview(bits).cast("B"))
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[:n_vocab])


def draw(tokenizer: Tokenizer, mask: Constraint, rng: random.Random, most: int = 400) -> str | None:
    """A text drawn uniformly from what is allowed; None if it did not come to an end."""
    ids: list[int] = []
    for _ in range(most):
        choice = allowed(mask, tokenizer.n_vocab + 5)
        assert len(choice), f"nothing is allowed after {tokenizer.decode(ids)!r}"
        token = int(rng.choice(choice))
        assert token < tokenizer.n_vocab
        mask.accept(token)
        if token in tokenizer.eog_ids:
            return b"".join(map(tokenizer.token_bytes, ids)).decode()
        ids.append(token)
    return None


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_whatever_is_drawn_fits_the_schema(vocabulary: tuple[Tokenizer, Compiler], schema: dict[str, Any]) -> None:
    tokenizer, compiler = vocabulary
    form = compiler.form(json_schema=schema)
    rng, ended = random.Random(3), 0
    for _ in range(5):
        text = draw(tokenizer, form(), rng)
        if text is not None:
            jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
            ended += 1
    assert ended >= 3


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ("/(yes|no), [0-9]{1,3}!/", "(yes|no), [0-9]{1,3}!"),
        ('root ::= greet " " ("world" | "moon")\ngreet ::= "hello" | "bye"', "(hello|bye) (world|moon)"),
        ('start: "x" N ("," N)~1..3\nN: /[0-9]/', "x[0-9](,[0-9]){1,3}"),
    ],
)
def test_grammars(vocabulary: tuple[Tokenizer, Compiler], grammar: str, pattern: str) -> None:
    tokenizer, compiler = vocabulary
    form = compiler.form(grammar=grammar)
    for seed in range(5):
        text = draw(tokenizer, form(), random.Random(seed))
        assert text is not None and re.fullmatch(pattern, text)


def test_a_form_may_begin_after_a_text(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    mask = compiler.form(json_schema={"const": 7}, after="</think>")()
    for token in tokenizer.encode("I think <so> </thin", add_special=False):
        mask.accept(token)
    free = set(range(tokenizer.n_vocab)) - tokenizer.eog_ids  # an answer cannot end before it begins
    assert set(allowed(mask, tokenizer.n_vocab).tolist()) == free
    mask.accept(next(i for i in range(tokenizer.n_vocab) if tokenizer.token_bytes(i) == b"k"))
    mask.accept(next(i for i in range(tokenizer.n_vocab) if tokenizer.token_bytes(i) == b">"))
    assert draw(tokenizer, mask, random.Random(0)) == "7"


def test_a_token_against_the_form_closes_it(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    for before in ("", "a"):  # also where the answer might end
        mask = compiler.form(grammar="/[ab]*/")()
        for token in tokenizer.encode(before, add_special=False):
            mask.accept(token)
        mask.accept(tokenizer.encode("z", add_special=False)[-1])
        assert len(allowed(mask, tokenizer.n_vocab)) == 0


CALL_SCHEMA = {"$defs": {"tool0": SCHEMAS[0]}, "anyOf": [{"type": "object", "properties": {
    "name": {"const": "save"}, "arguments": {"$ref": "#/$defs/tool0"}}, "required": ["name", "arguments"],
    "additionalProperties": False, "description": "a ::= b"}]}  # fmt: skip


def guard(compiler: Compiler, prompt: str = "") -> CallGuard:
    return compiler.calls("<tool_call>", CALL_SCHEMA, lambda: ReasoningSplitter(FAMILIES[0], prompt))()


def feed(tokenizer: Tokenizer, mask: CallGuard, text: str) -> None:
    for token in tokenizer.encode(text, add_special=False, parse_special=True):
        mask.accept(token)


def test_calls_in_a_free_text_fit_their_schema(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    mask, n_vocab, rng = guard(compiler), tokenizer.n_vocab + 5, random.Random(4)
    for text in ("I will: <tool_call>", "\n</tool_call>\n<tool_call>\n", "wörld <tool_ca <tool_call>"):
        assert len(allowed(mask, n_vocab)) == n_vocab
        feed(tokenizer, mask, text)
        ids: list[int] = []
        while len(choice := allowed(mask, n_vocab)) < n_vocab:
            assert len(choice) and len(ids) < 300
            ids.append(int(rng.choice(choice)))
            mask.accept(ids[-1])
        call = json.loads(b"".join(map(tokenizer.token_bytes, ids)))
        jsonschema.validate(call, CALL_SCHEMA)


def test_calls_in_an_array(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    schema = {"$defs": CALL_SCHEMA["$defs"], "type": "array", "items": {"anyOf": CALL_SCHEMA["anyOf"]}, "minItems": 1}
    form = compiler.calls("[TOOL_CALLS]", schema, lambda: ReasoningSplitter(None))
    for seed in range(3):
        mask, n_vocab, rng, ids = form(), tokenizer.n_vocab + 5, random.Random(seed), []
        feed(tokenizer, mask, "[TOOL_CALLS]")
        while len(choice := allowed(mask, n_vocab)) < n_vocab:
            assert len(choice) and len(ids) < 600
            ids.append(int(rng.choice(choice)))
            mask.accept(ids[-1])
        jsonschema.validate(json.loads(b"".join(map(tokenizer.token_bytes, ids))), schema)


def test_what_is_no_beginning_of_a_call_stays_free(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    for prompt, text in (
        ("", "<tool_call"), ("", "<tool_ call>"), ("", "<think>a <tool_call>"), ("<think>\n", "a <tool_call>"),
    ):  # fmt: skip
        mask = guard(compiler, prompt)
        feed(tokenizer, mask, text)
        assert len(allowed(mask, tokenizer.n_vocab + 5)) == tokenizer.n_vocab + 5, text
    mask = guard(compiler, "<think>\n")
    feed(tokenizer, mask, "a <tool_call> </think>\n\n<tool_call>")
    assert 0 < len(allowed(mask, tokenizer.n_vocab + 5)) < tokenizer.n_vocab + 5


def test_a_token_against_a_call_closes_it(vocabulary: tuple[Tokenizer, Compiler]) -> None:
    tokenizer, compiler = vocabulary
    mask = guard(compiler)
    feed(tokenizer, mask, "<tool_call>")
    mask.accept(tokenizer.encode("z", add_special=False)[-1])
    assert len(allowed(mask, tokenizer.n_vocab + 5)) == 0


HOSTILE: list[dict[str, Any]] = [
    {"json_schema": "{"}, {"json_schema": {"type": "nothing"}}, {"json_schema": {"not": {}}},
    {"json_schema": {"$ref": "http://127.0.0.1/schema"}}, {"json_schema": {"type": "string", "pattern": "(?=a)b"}},
    {"json_schema": {"type": "string", "pattern": "(a"}},
    {"json_schema": {"type": "integer", "minimum": 2, "maximum": 1}},
    {"json_schema": {"type": "array", "items": 7}}, {"json_schema": "[" * 100_000},
    {"json_schema": '"' + "x" * 300_000},
    {"json_schema": {"enum": list(range(30_000))}}, {"json_schema": {"format": "no such format", "type": "string"}},
    {"json_schema": {"uniqueItems": True, "type": "array"}}, {"json_schema": {"if": {}, "then": {}}},
    {"grammar": ""}, {"grammar": "/(/"}, {"grammar": "/" + "a" * 5000 + "/"}, {"grammar": "start: nothing"},
    {"grammar": "root ::= root"}, {"grammar": "root ::= "}, {"grammar": "root ::= " + "(" * 60_000},
    {"grammar": "x" * 300_000}, {"grammar": "start: start start"}, {"grammar": "no grammar at all"},
    {"grammar": "start: /((((a{100}){100}){100}){100}){100}/"}, {"grammar": "\x00"}, {"grammar": "start: %import x"},
]  # fmt: skip


@pytest.mark.parametrize("given", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_form_is_refused_or_ends(given: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    compiler = Compiler(tokenizer, tokenizer.n_vocab)
    try:
        mask = compiler.form(**given)()
    except InvalidArgument as error:
        assert next(iter(given)) in str(error) and len(str(error)) < 700
        return
    for _ in range(20):  # it may be compiled; then every step ends, perhaps with nothing allowed
        choice = allowed(mask, tokenizer.n_vocab)
        if not len(choice):
            break
        mask.accept(int(choice[-1]))


def test_a_token_may_go_on_behind_the_text_that_a_form_begins_after() -> None:
    """As in a vocabulary in which one token is "> {": what stands behind the mark is of the form already."""
    metadata = byte_level()
    tokens, more = metadata["tokenizer.ggml.tokens"], [">{", ">x", ">\u010a"]  # the last is a line end
    tokenizer = Tokenizer({**metadata, "tokenizer.ggml.tokens": tokens + more,
                           "tokenizer.ggml.token_type": metadata["tokenizer.ggml.token_type"] + [1] * 3})  # fmt: skip
    form = Compiler(tokenizer, tokenizer.n_vocab).form(json_schema={"const": {}}, after="</think>")
    for token, expected in ((len(tokens), "}"), (len(tokens) + 1, None), (len(tokens) + 2, "{}")):
        mask = form()
        for begun in tokenizer.encode("a</think", add_special=False):
            mask.accept(begun)
        mask.accept(token)
        if expected is None:
            assert not len(allowed(mask, tokenizer.n_vocab)) and mask.closed
            continue
        for byte in expected.encode():
            choice = [tokenizer.token_bytes(int(i)) for i in allowed(mask, tokenizer.n_vocab)]
            assert bytes([byte]) in choice
            mask.accept(tokenizer.encode(chr(byte), add_special=False)[0])
        assert set(allowed(mask, tokenizer.n_vocab).tolist()) == set(tokenizer.eog_ids)


ENDLESS = {"$defs": {"x": {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "required": ["a"]}},
           "$ref": "#/$defs/x"}  # fmt: skip
RULES = "start: " + " | ".join(f"r{i}" for i in range(5000)) + "".join(f'\nr{i}: "{i}"' for i in range(5000))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"json_schema": {"$ref": "#"}}, "no answer fits"), ({"json_schema": ENDLESS}, "no end"),
        ({"grammar": "/[^\\s\\S]/"}, "no answer fits"), ({"grammar": "start: start"}, "no answer fits"),
        ({"grammar": 'start: "a" start'}, "no end"), ({"grammar": RULES}, "too large"),
        ({"grammar": "/(a{1000}){1000}/"}, "too large"), ({"grammar": "/(a{1000}){300}/"}, "too large"),
        ({"grammar": "root ::= foo"}, "not GBNF: Rule 'foo'"), ({"grammar": 'x ::= "a"'}, "not GBNF: No 'root'"),
        ({"grammar": Grammar("gbnf", 'start: "a"')}, "not GBNF"),
        ({"grammar": Grammar("lark", 'root ::= "a"')}, "grammar"),
        ({"json_schema": {"x-guidance": {"lenient": True}, "not": {}}}, "x-guidance"),
        ({"grammar": "start: a\na[capture, temperature=0.5]: /x+/"}, "temperature"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(given: dict[str, Any], match: str) -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    with pytest.raises(InvalidArgument, match=match) as caught:
        Compiler(tokenizer, tokenizer.n_vocab).form(**given)
    assert str(caught.value).startswith(next(iter(given)))


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (Grammar("lark", '// c\nstart: "a" // x/'), "a"), (Grammar("lark", 'start: "a::=b"'), "a::=b"),
        (Grammar("regex", "a::=b"), "a::=b"), (Grammar("regex", "/a/"), "/a/"),
        (Grammar("gbnf", '# /\nroot ::= "/"#/'), "/"),
    ],
)  # fmt: skip
def test_a_grammar_is_read_in_its_syntax(grammar: Grammar, text: str) -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    form = Compiler(tokenizer, tokenizer.n_vocab + 5).form(grammar=grammar)
    assert draw(tokenizer, form(), random.Random(1)) == text


WORDS = ["".join(random.Random(i).choices("abcdefgh", k=8)) for i in range(12_000)]
LARGE: list[dict[str, Any]] = [
    {"json_schema": {"enum": WORDS}}, {"json_schema": {"type": "object"}},
    {"json_schema": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(400)},
                     "additionalProperties": False}},
    {"json_schema": {"type": "object", "properties": {f"p{i}": {"type": "boolean"} for i in range(1500)},
                     "required": [f"p{i}" for i in range(1500)], "additionalProperties": False}},
    {"json_schema": {"type": "array", "items": {"type": "string", "maxLength": 100_000}, "minItems": 1000}},
    {"json_schema": {"type": "string", "pattern": "^[\\p{L}\\p{N} .+-]{1,200}@[a-z0-9-]{1,63}$"}},
    {"grammar": "root ::= (" + " | ".join(f'"{word}"' for word in WORDS[:1900]) + ")+"},
]  # fmt: skip


@pytest.mark.parametrize("given", LARGE, ids=range(len(LARGE)))
def test_large_forms_are_held_and_quick(vocabulary: tuple[Tokenizer, Compiler], given: dict[str, Any]) -> None:
    tokenizer, compiler = vocabulary
    mask, rng, took = compiler.form(**given)(), random.Random(1), []
    for _ in range(60):
        begun = time.thread_time()
        choice = allowed(mask, tokenizer.n_vocab + 5)
        took.append(time.thread_time() - begun)
        going = [int(token) for token in choice if token not in tokenizer.eog_ids]
        assert len(choice)
        if not going:
            break
        mask.accept(rng.choice(going))
    assert sorted(took)[len(took) // 2] < 0.02  # some milliseconds at most; what it held up took a second


def patterns(n: int) -> dict[str, Any]:
    """That must all hold: llguidance takes 1 s and 300 MB for twenty, a minute and 4 GB for twenty-four."""
    return {"type": "string", "allOf": [{"pattern": f"a{i}"} for i in range(n)]}


@pytest.mark.parametrize(
    "given",
    [
        {"json_schema": patterns(24)},
        {"json_schema": {"patternProperties": {f"a{i}": {} for i in range(60)}, "type": "object"}},
        {"grammar": "start: " + " & ".join(f"/(?s:.*)a{i}(?s:.*)/" for i in range(24))},
    ],
)
def test_a_form_that_is_endless_to_compile_is_refused_in_time(given: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    compiler = Compiler(tokenizer, tokenizer.n_vocab)
    before, begun = used_memory()[0], time.monotonic()
    with pytest.raises(InvalidArgument):
        compiler.form(**given)
    assert time.monotonic() - begun < 20 and used_memory()[0] - before < 100 << 20
    mask = compiler.form(json_schema=patterns(2))()
    assert len(allowed(mask, tokenizer.n_vocab))


def test_a_killed_child_is_replaced() -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    compiler = Compiler(tokenizer, tokenizer.n_vocab)
    compiler.form(json_schema={"const": 1})
    process = constraint._CHILD.process
    assert process is not None
    process.kill()
    process.wait()
    assert len(allowed(compiler.form(json_schema={"const": 2})(), tokenizer.n_vocab))
    assert constraint._CHILD.process is not process


def test_a_schema_nested_deeply_is_refused() -> None:
    tokenizer = Tokenizer.from_gguf(demo_model_path())
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(70):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidArgument, match="too large"):
        Compiler(tokenizer, tokenizer.n_vocab).form(json_schema=schema)
