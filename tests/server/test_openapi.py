"""The published OpenAPI document beside the server, by a tool that reads such documents and makes requests of them:
what fits the document is answered or refused by name, what does not is refused, and every reply has the form that is
promised. Hypothesis prints the request that fails, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from localllm.server.openapi import document
from tests.server.live import Live, serving

# Not among them: that whatever fits is accepted. No schema tells which token ids a model has, which forms an answer can
# be held to, or that top_logprobs wants logprobs; test_refusals.py names what is refused beyond the document.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def small(tiny: Path) -> Iterator[Live]:
    """Answers are short: nothing bounds the max_tokens that are asked for."""
    with serving(tiny, {"context": 64}) as live:
        yield live
        live.wait_until_idle()


def without_large_bounds(schema: Any) -> Any:
    """Requests are made on both sides of every bound, and a list beyond 10,000 messages takes 400 MB."""
    if isinstance(schema, dict):
        bounds = ("maxItems", "maxLength")
        return {k: without_large_bounds(v) for k, v in schema.items() if not (k in bounds and v > 1024)}
    return [without_large_bounds(item) for item in schema] if isinstance(schema, list) else schema


def test_what_says_nothing_is_in_the_document() -> None:
    told = {name: schema["properties"] for name, schema in document()["components"]["schemas"].items()
            if "properties" in schema}  # fmt: skip
    for name, field, value, wrong in (
        ("ChatRequest", "store", False, True),
        ("ChatRequest", "service_tier", "auto", "flex"),
        ("ChatRequest", "modalities", ["text"], ["audio"]),
        ("ChatRequest", "top_k", 0, -1),
        ("CompletionRequest", "best_of", 1, 2),
        ("AssistantMessage", "content", [], [1]),
        ("AssistantMessage", "reasoning", "x", 1),
    ):
        validator = jsonschema.Draft202012Validator({**told[name][field], "components": document()["components"]})
        assert validator.is_valid(value) and validator.is_valid(None) and not validator.is_valid(wrong)
    assert "store" not in told["TokenizeRequest"] and told["AssistantMessage"]["parsed"] == {}


api = schemathesis.openapi.from_dict(without_large_bounds(document()))


@api.parametrize()
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_replies_keep_to_the_document(small: Live, case: schemathesis.Case) -> None:
    case.call_and_validate(base_url=small.url, checks=CHECKS)
