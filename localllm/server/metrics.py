"""/metrics: what happened so far, in Prometheus' text format.

What the engine counts anyway is read from it when somebody asks. Only what it cannot know is recorded here: how long
clients waited for tokens, and how requests ended."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from localllm.energy import meter
from localllm.engine.engine import Stats
from localllm.llm import LLM

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST = (0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1, 1.5, 2.5, 5, 10, 20, 40, 80)
GAPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10)


class Metrics:
    def __init__(self, llm: LLM) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Engine(llm))
        first = _Histogram(
            "localllm_time_to_first_token_seconds", "From the head of a request to its first token.", FIRST
        )
        gaps = _Histogram("localllm_inter_token_seconds", "Between two tokens of an answer.", GAPS)
        self._registry.register(first)
        self._registry.register(gaps)
        self.first_token, self.gap = first.observe, gaps.observe
        self._requests = Counter(
            "localllm_requests", "Requests for an answer, by how they ended.", ["end"], registry=self._registry
        )
        for end in ("done", "left", "failed", "refused"):
            self._requests.labels(end)
        self._prompt_tokens = Counter(
            "localllm_prompt_tokens", "Tokens of prompts, cached ones included.", registry=self._registry
        )

    def request(self, end: str, prompt_tokens: int = 0) -> None:
        self._requests.labels(end).inc()
        self._prompt_tokens.inc(prompt_tokens)

    async def metrics(self, http: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE})


class _Histogram(Collector):
    """As prometheus_client's own, but for one thread, so that it needs no locks: it hears of every token."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        names = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


class _Engine(Collector):
    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._joules = meter(llm.plan.device)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = self._llm.stats
        yield GaugeMetricFamily("localllm_queue", "Answers that wait for their first step.", stats.waiting)
        yield GaugeMetricFamily("localllm_running", "Answers that are being made.", stats.running)
        blocks = GaugeMetricFamily("localllm_kv_blocks", "KV blocks by state; cached ones may be used or free.",
                                   labels=["state"])  # fmt: skip
        blocks.add_metric(["used"], stats.blocks - stats.blocks_free)
        blocks.add_metric(["free"], stats.blocks_free)
        blocks.add_metric(["cached"], stats.blocks_cached)
        yield blocks
        for name, (text, value) in _counters(stats).items():
            yield CounterMetricFamily(f"localllm_{name}", text, value)
        if self._joules is not None:
            text = "Energy that the processor's packages, or the GPU, have used."
            yield CounterMetricFamily("localllm_joules", text, self._joules())


def _counters(stats: Stats) -> dict[str, tuple[str, float]]:
    return {
        "steps": ("Steps: a token for each answer that is written, and a part of a pass over prompts.", stats.steps),
        "generated_tokens": ("Tokens of answers.", stats.generated_tokens),
        "computed_tokens": ("Tokens that passed through the model, recomputed ones included.", stats.computed_tokens),
        "prefix_hit_tokens": ("Tokens that the prefix cache had.", stats.cached_tokens),
        "preemptions": ("Answers put back into the queue for want of KV blocks.", stats.preemptions),
        "scheduler_seconds": ("Time spent deciding.", stats.scheduler_seconds),
        "runner_seconds": ("Time spent computing.", stats.runner_seconds),
    }
