"""What an answer is held to, written for llguidance: schemas, grammars and calls as parts, and parts as a whole.

A part is one grammar; the first part of a whole is where an answer begins, and may name others as @name. JSON is
written with ", " and ": " and no other white space: a model that may write white space freely sometimes writes nothing
else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from localllm.errors import InvalidArgument
from localllm.params import Grammar
from localllm.text import schemas

Part = dict[str, Any]
_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def whole(*parts: Part) -> str:
    return json.dumps({"grammars": parts})


def named(name: str, part: Part) -> Part:
    return {"name": name, **part}


def schema_part(schema: Any) -> Part:
    """Of a schema that is ready (see schemas.py)."""
    if isinstance(schema, Mapping):
        schema = {**schema, "x-guidance": _JSON}
    if (size := len(json.dumps(schema))) > schemas.MOST_SOURCE:
        raise InvalidArgument(f"it has {size} characters; at most {schemas.MOST_SOURCE} are allowed")
    return {"json_schema": schema}


_TEMPERATURE = re.compile(r"^\s*\??\w+\s*\[[^\]\n]*\btemperature\s*=", re.M)


def grammar_part(grammar: str | Grammar) -> Part:
    if isinstance(grammar, str):
        grammar = _guessed(grammar)
    text = grammar.text
    if len(text) > schemas.MOST_SOURCE:
        raise InvalidArgument(f"it has {len(text)} characters; at most {schemas.MOST_SOURCE} are allowed")
    if grammar.syntax == "regex":
        return _pattern_part(text)
    if grammar.syntax == "lark" and _TEMPERATURE.search(text):
        raise InvalidArgument("a rule's temperature is not heeded here")
    return {"lark_grammar": _lark(text) if grammar.syntax == "gbnf" else text}


def call_in_text(schema: Any) -> str:
    """The whole of one JSON value in a free text, with what may stand around it."""
    around = {"lark_grammar": "start: /[ \\n]?/ @call /[ \\n]?/"}
    return whole(around, named("call", schema_part(schema)))


def _guessed(text: str) -> Grammar:
    """What a text is that does not say: a pattern between slashes, GBNF, or else Lark's syntax."""
    if len(text) > 1 and text[0] == text[-1] == "/":
        return Grammar("regex", text[1:-1])
    return Grammar("gbnf" if "::=" in text else "lark", text)


def _pattern_part(pattern: str) -> Part:
    from llguidance import LLMatcher

    if len(pattern) > schemas.MOST_PATTERN:
        raise InvalidArgument(f"a pattern has at most {schemas.MOST_PATTERN} characters, not {len(pattern)}")
    (part,) = json.loads(LLMatcher.grammar_from_regex(pattern))["grammars"]
    return {"lark_grammar": part["lark_grammar"]}


def _lark(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(gbnf))
    except Exception as error:  # it raises bare ones, too
        raise InvalidArgument(f"not GBNF: {error}") from None
