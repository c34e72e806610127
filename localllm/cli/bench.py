"""`localllm bench`: how fast a model runs on this machine, and how far that is from what the machine could do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from localllm.cli.options import collect, options
from localllm.config import BenchOptions, DeviceOptions

if TYPE_CHECKING:
    from localllm.bench.measure import Case


@click.command()
@click.argument("model", required=False)
@options(BenchOptions, DeviceOptions)
def bench(model: str | None, **values: Any) -> None:
    """Measure MODEL, by default the bundled one: prompts, and generation by batches of sequences.

    \b
    tokens/s      of the whole batch: the median, least and most of the repeats
    GB/s          weights and KV cache that had to be read, each once per step
    of roof       the larger of GB/s by the memory's read bandwidth and of
                  2 x multiply-adds per second by the int8 peak, both
                  measured here with the same number of threads
    J/token       energy, where the machine tells
    scheduler us  microseconds of Python per step

    Every option is also the variable LOCALLLM_<OPTION>.
    """
    chosen, device = collect(BenchOptions, values), collect(DeviceOptions, values)
    tests = _tests(chosen)
    if not tests:
        raise click.UsageError("there is nothing to measure: both --prefill and --decode are 0")

    from localllm.bench import roof, table
    from localllm.bench.measure import opened
    from localllm.cli.loading import find, read_ahead

    path = find(model)
    read_ahead(path)
    with opened(path, tests, device) as open_bench:
        tell = _progress()
        tell("measuring this machine's roof")
        plan = open_bench.plan
        limit = roof.measure(open_bench.threads) if plan.device == "cpu" else roof.Roof()
        results = [open_bench.run(test, chosen.repeats, tell) for test in tests]
        tell("")
    dicts = [result.as_dict(limit) for result in results]
    found = {"model": str(path), "device": plan.device, "threads": open_bench.threads, "roof": limit._asdict()}
    if chosen.json:
        click.echo(json.dumps({**found, "results": dicts}))
    else:
        click.echo(f"{path}\n{plan.device}, {found['threads']} threads, {plan.kv_type} KV; {table.roof_line(limit)}\n")
        click.echo(table.results_table(dicts))
    for kind in ("prefill", "decode") if chosen.profile else ():
        first = next((result for result in results if result.test.kind == kind), None)
        if first is not None:
            click.echo("\n" + table.profile_table(first), err=chosen.json)


def _tests(chosen: BenchOptions) -> list[Case]:
    from localllm.bench.measure import Case

    tests = [Case("prefill", n) for n in chosen.numbers("prefill") if n]
    if chosen.decode:
        depths, batches = chosen.numbers("depth"), chosen.numbers("batch")
        tests += [Case("decode", chosen.decode, batch, depth) for depth in depths for batch in batches]
    return tests


def _progress() -> Callable[[str], None]:
    """Shows what goes on, on standard error: in one line of a terminal, else a line for each test."""
    if sys.stderr is None:
        return lambda _: None
    if sys.stderr.isatty():
        return lambda text: click.echo(f"\r\x1b[K{text}", nl=False, err=True)
    return lambda text: click.echo(text, err=True) if text and ": repeat" not in text else None
