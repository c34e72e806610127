"""Forms in gpt-oss' messages: what may be written is read back as an answer or a call, and judged by jsonschema."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import numpy as np
import pytest

from localllm.bundled import demo_model_path
from localllm.errors import InvalidArgument
from localllm.params import Grammar
from localllm.text.calls import FORMATS, CallReader
from localllm.text.channels import MARKS, ChannelSplitter
from localllm.text.constraint import Compiler, Constraint
from localllm.text.tokenizer import Tokenizer
from tests.text.vocabularies import CONTROL, byte_level

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                          "additionalProperties": False}  # fmt: skip
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
                        "additionalProperties": False}  # fmt: skip
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "get.city-of", "parameters": CITY}},
]
START, ANALYSIS = "<|start|>assistant", "<|channel|>analysis<|message|>"
FINAL, JSON_FINAL = "<|channel|>final<|message|>", "<|channel|>final <|constrain|>json<|message|>"
CALL = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
CALL_AS_RENDERED = " to=functions.f<|channel|>commentary json<|message|>"
THOUGHT = f"{ANALYSIS}1 < 2, <|en, x|><|end|>{START}"


def special_vocabulary() -> Tokenizer:
    """In which the marks are tokens, as in gpt-oss' own."""
    metadata = byte_level()
    marks = [*sorted(MARKS), "<|return|>"]
    return Tokenizer({
        **metadata,
        "tokenizer.ggml.tokens": metadata["tokenizer.ggml.tokens"] + marks,
        "tokenizer.ggml.token_type": metadata["tokenizer.ggml.token_type"] + [CONTROL] * len(marks),
    })  # fmt: skip


@pytest.fixture(scope="module", params=["tokens", "spelled"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return special_vocabulary() if request.param == "tokens" else Tokenizer.from_gguf(demo_model_path())


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> Compiler:
    return Compiler(tokenizer, tokenizer.n_vocab)


def allowed(mask: Constraint, n_vocab: int) -> list[int]:
    bits = np.zeros(-(-n_vocab // 32) * 4, np.uint8)
    mask.fill(bits.data)
    return [int(i) for i in np.flatnonzero(np.unpackbits(bits, bitorder="little")[:n_vocab])]


def written(tokenizer: Tokenizer, mask: Constraint, text: str) -> str | None:
    """None if the text may be written, else how far."""
    ids = tokenizer.encode(text, add_special=False)
    for i, token in enumerate(ids):
        if token not in allowed(mask, tokenizer.n_vocab):
            return tokenizer.decode(ids[:i], special=True)
        mask.accept(token)
    return None


def ended(tokenizer: Tokenizer, mask: Constraint) -> bool:
    return bool(tokenizer.eog_ids & set(allowed(mask, tokenizer.n_vocab)))


def go_on(tokenizer: Tokenizer, mask: Constraint, rng: random.Random) -> str:
    """A text drawn from what is allowed, to the end of the answer."""
    ids: list[int] = []
    while (token := rng.choice(allowed(mask, tokenizer.n_vocab))) not in tokenizer.eog_ids:
        mask.accept(token)
        ids.append(token)
    return tokenizer.decode(ids, special=True)


@pytest.mark.parametrize("head", [FINAL, JSON_FINAL, THOUGHT + FINAL, THOUGHT * 2 + JSON_FINAL])
def test_a_schema_holds_the_final_message(tokenizer: Tokenizer, compiler: Compiler, head: str) -> None:
    for seed in range(3):
        mask = compiler.form(json_schema=SCHEMA, channels=True)()
        assert written(tokenizer, mask, head) is None and not ended(tokenizer, mask)
        text = head + go_on(tokenizer, mask, random.Random(seed))
        pieces = ChannelSplitter().push(text)
        jsonschema.validate(json.loads("".join(piece.text for piece in pieces if not piece.reasoning)), SCHEMA)


@pytest.mark.parametrize("head", [CALL, CALL_AS_RENDERED, THOUGHT + CALL, THOUGHT + CALL_AS_RENDERED,
                                  "<|channel|>commentary to=functions.f<|message|>",
                                  "<|channel|>commentary to=functions.f json<|message|>"])  # fmt: skip
def test_a_call_is_held_to_its_functions_schema(tokenizer: Tokenizer, compiler: Compiler, head: str) -> None:
    for schema, function in ((SCHEMA, "f"), (CITY, "get.city-of")):
        mask = compiler.form(calls=TOOLS, channels=True)()
        begun = head.replace("functions.f", f"functions.{function}")
        assert written(tokenizer, mask, begun) is None and not ended(tokenizer, mask)
        text = begun + go_on(tokenizer, mask, random.Random(1))
        reader = CallReader(FORMATS[-1:], ["f", "get.city-of"])
        shown = "".join(reader.push(piece.text) for piece in ChannelSplitter().push(text) if not piece.reasoning)
        rest, (call,) = reader.finish()
        assert shown.strip() == rest == "" and call.name == function
        jsonschema.validate(json.loads(call.arguments), schema)


ESCAPES = ["", "{", "I", ANALYSIS, f"{ANALYSIS}x<|end|>", THOUGHT, FINAL, f"{FINAL}x", f"{JSON_FINAL}{{\"b",
           "<|channel|>commentary<|message|>Sure", CALL, f"{CALL}{{\"a\": \"not", f"{THOUGHT}{CALL}{{\"a\": \"not",
           "<|channel|>commentary to=functions.g", f"{ANALYSIS}x<|start|>", f"{ANALYSIS}x<|channel|>final<|message|>",
           f"{FINAL}{{\"a\": true}}<|end|>", f"{CALL}{{\"a\": true}} "]  # fmt: skip


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_else_comes_to_an_end(tokenizer: Tokenizer, compiler: Compiler, text: str) -> None:
    """It may not be written at all, or the answer does not end there."""
    for given in ({"json_schema": SCHEMA}, {"calls": TOOLS}, {"json_schema": SCHEMA, "calls": TOOLS}):
        mask = compiler.form(**given, channels=True)()  # type: ignore[arg-type]
        assert written(tokenizer, mask, text) is not None or not ended(tokenizer, mask)


def test_the_other_way_is_not_open(tokenizer: Tokenizer, compiler: Compiler) -> None:
    for given, open_, shut in (
        ({"json_schema": SCHEMA}, [FINAL], [CALL, CALL_AS_RENDERED]), ({"calls": TOOLS}, [CALL], [FINAL, JSON_FINAL]),
        ({"json_schema": SCHEMA, "calls": TOOLS}, [FINAL, CALL], [f"{FINAL}[", "<|channel|>commentary<|message|>"]),
    ):  # fmt: skip
        for text in open_:
            assert written(tokenizer, compiler.form(**given, channels=True)(), text) is None  # type: ignore[arg-type]
        for text in shut:
            assert written(tokenizer, compiler.form(**given, channels=True)(), text) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("grammar", [Grammar("regex", 'a"[0-9]/'),
                                     Grammar("gbnf", 'root ::= "a\\"" d "/"\nd ::= [0-9]'),
                                     Grammar("lark", 'start: "a\\"" D "/"\nD: /[0-9]/')])  # fmt: skip
def test_grammars(tokenizer: Tokenizer, compiler: Compiler, grammar: Grammar) -> None:
    mask = compiler.form(grammar=grammar, channels=True)()
    assert written(tokenizer, mask, f'{THOUGHT}{FINAL}a"7/') is None and ended(tokenizer, mask)
    assert written(tokenizer, compiler.form(grammar=grammar, channels=True)(), f"{FINAL}a7") is not None


def test_a_form_that_nothing_fits_is_refused_though_it_comes_late(compiler: Compiler) -> None:
    with pytest.raises(InvalidArgument, match="json_schema: no answer fits"):
        compiler.form(json_schema={"$ref": "#"}, channels=True)
    with pytest.raises(InvalidArgument, match='function "g": parameters: no answer fits'):
        compiler.form(calls=[*TOOLS, {"name": "g", "parameters": {"$ref": "#"}}], channels=True)
