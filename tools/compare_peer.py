#!/usr/bin/env python3
"""The speed of localllm and of an installed llama.cpp on one file, measured in turns, and the ratios.

    python tools/compare_peer.py MODEL.gguf --llama-bench PATH --llama-batched-bench PATH [-p 512,4096] [-n 64]
        [-b 1,8,32] [-d 0,8192] [-t 2] [--rounds 5] [--peer-arguments "-fa on"] [--json]

llama-bench measures prompts and single streams, llama-batched-bench the batches; with only one of them, only what it
measures is compared (llama-batched-bench alone: the generation of all batches). Each round runs every program once, the
peer first in one round and last in the next, so that a machine that slows down or speeds up does so for both. A figure
is the median of the rounds, a ratio that of ours to the peer's. Threads are the same; both warm up by themselves.
`localllm bench -r 1` is ours; what else it obeys (LOCALLLM_CPU, --kv-type as LOCALLLM_KV_TYPE) comes from the
environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Case(NamedTuple):
    test: str  # "prefill" or "decode"
    tokens: int
    batch: int
    depth: int


Speeds = dict[Case, float]  # tokens per second of the whole batch


class PeerError(Exception):
    """A program did not do what was expected of it."""


def output_of(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    except OSError as error:
        raise PeerError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerError(f"{command[0]} ended with {done.returncode}: {lines[-1]}\n  {shlex.join(command)}")
    return done.stdout


def numbers(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


# ---- one round of each program ----


def ours(args: argparse.Namespace, tests: set[Case]) -> Speeds:
    batches = sorted({case.batch for case in tests if case.test == "decode"})
    prompts = sorted({case.tokens for case in tests if case.test == "prefill"}) or [0]
    command = [sys.executable, "-m", "localllm", "bench", args.model, "--device", "cpu", "-t", str(args.threads)]
    command += ["--json", "-r", "1", "-p", numbers(prompts)]
    command += ["-n", str(args.decode), "-b", numbers(batches), "-d", numbers(args.depth)] if batches else ["-n", "0"]
    found = read_json("localllm bench", output_of(command))["results"]
    return {
        Case(one["test"], one["tokens"], one["batch"], one["depth"]): one["tokens_per_second"]["median"]
        for one in found
    }


def llama_bench(args: argparse.Namespace) -> Speeds:
    """Prompts without a depth and one stream at each depth: llama-bench would multiply all lists with each other."""
    common = [
        args.llama_bench,
        "-m",
        args.model,
        "-t",
        str(args.threads),
        "-r",
        "1",
        "-o",
        "json",
        *args.peer_arguments,
    ]
    runs = [["-p", numbers(args.prefill), "-n", "0"]] if args.prefill else []
    depth = ["-d", numbers(args.depth)] if any(args.depth) else []  # older ones know no depth
    runs += [["-p", "0", "-n", str(args.decode), *depth]] if args.decode and 1 in args.batch else []
    speeds: Speeds = {}
    for run in runs:
        with told_of(args.llama_bench):
            for one in read_json(args.llama_bench, output_of([*common, *run])):
                kind = "decode" if one["n_gen"] else "prefill"
                speeds[Case(kind, one["n_gen"] or one["n_prompt"], 1, one.get("n_depth", 0))] = one["avg_ts"]
    return speeds


def llama_batched_bench(args: argparse.Namespace) -> Speeds:
    """Batches at each depth, of which its prompt is the depth; one of nothing is one of a token there."""
    batches = [batch for batch in args.batch if batch > 1 or not args.llama_bench] if args.decode else []
    speeds: Speeds = {}
    for depth in args.depth if batches else []:
        context = max(batches) * (max(depth, 1) + args.decode)
        command = [args.llama_batched_bench, "-m", args.model, "-t", str(args.threads), "-c", str(context)]
        command += ["-npp", str(max(depth, 1)), "-ntg", str(args.decode), "-npl", numbers(batches)]
        command += ["--output-format", "jsonl", *args.peer_arguments]
        lines = [line for line in output_of(command).splitlines() if line.startswith("{")]
        with told_of(args.llama_batched_bench):
            for one in (read_json(args.llama_batched_bench, line) for line in lines):
                speeds[Case("decode", one["tg"], one["pl"], depth)] = one["speed_tg"]
    return speeds


@contextmanager
def told_of(program: str) -> Iterator[None]:
    """What it prints is of another shape."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise PeerError(f"{program} printed JSON of another shape: {error!r}") from None


def read_json(program: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PeerError(f"{program} did not print JSON: {error}") from None


# ---- rounds and their table ----


def compare(args: argparse.Namespace, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    peers: list[Speeds] = []
    own: list[Speeds] = []

    def peer_round() -> None:
        speeds = llama_bench(args) if args.llama_bench else {}
        peers.append({**speeds, **(llama_batched_bench(args) if args.llama_batched_bench else {})})

    def own_round() -> None:
        own.append(ours(args, wanted(args)))

    for i in range(args.rounds):
        for name, run in (("peer", peer_round), ("localllm", own_round))[:: -1 if i % 2 else 1]:
            tell(f"round {i + 1} of {args.rounds}: {name}")
            run()
    results = []
    for case in own[0]:
        sides = [[speeds[case] for speeds in rounds if case in speeds] for rounds in (peers, own)]
        if len(sides[0]) < args.rounds:
            tell(f"the peer gave figures for {case} in {len(sides[0])} of {args.rounds} rounds")
        if sides[0]:
            spreads = [{"min": min(side), "median": median(side), "max": max(side)} for side in sides]
            ratio = spreads[1]["median"] / spreads[0]["median"]
            results.append({**case._asdict(), "peer": spreads[0], "localllm": spreads[1], "ratio": ratio})
    if not results:
        raise PeerError("the peer gave no figure at all")
    return results


def wanted(args: argparse.Namespace) -> set[Case]:
    """What the given programs of the peer can measure."""
    tests = {Case("prefill", n, 1, 0) for n in args.prefill if args.llama_bench}
    batches = [b for b in args.batch if args.llama_batched_bench or b == 1] if args.decode else []
    return tests | {Case("decode", args.decode, batch, depth) for batch in batches for depth in args.depth}


def table(results: list[dict[str, Any]]) -> str:
    rows = [f"{'test':14} {'batch':>5} {'depth':>6} {'peer tok/s':>11} {'localllm':>9} {'ratio':>6}"]
    for one in results:
        speeds = f"{one['peer']['median']:11.1f} {one['localllm']['median']:9.1f} {one['ratio']:6.2f}"
        rows.append(f"{one['test']:8}{one['tokens']:6} {one['batch']:5} {one['depth']:6} {speeds}")
    return "\n".join(rows)


def listed(text: str) -> list[int]:
    values = [int(word) for word in text.split(",")]
    if min(values) < 0:
        raise ValueError(text)
    return values


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a GGUF file that both can read")
    parser.add_argument("--llama-bench", metavar="PATH")
    parser.add_argument("--llama-batched-bench", metavar="PATH")
    parser.add_argument("-p", "--prefill", type=listed, default=[512], metavar="N,...")
    parser.add_argument("-n", "--decode", type=int, default=64, metavar="N")
    parser.add_argument("-b", "--batch", type=listed, default=[1, 8, 32], metavar="N,...")
    parser.add_argument("-d", "--depth", type=listed, default=[0], metavar="N,...")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("-r", "--rounds", type=int, default=5, metavar="N", help="figures are medians of so many")
    parser.add_argument(
        "--peer-arguments", type=shlex.split, default=[], metavar="WORDS", help="for both of the peer's"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(words)
    args.prefill = [n for n in args.prefill if n]
    if not (args.llama_bench or args.llama_batched_bench):
        parser.error("give --llama-bench, --llama-batched-bench or both")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not Path(args.model).is_file():
        parser.error(f"there is no file {args.model}")
    if not wanted(args):
        parser.error("there is nothing that the given programs measure")
    return args


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    try:
        results = compare(args, lambda text: print(text, file=sys.stderr, flush=True))
    except PeerError as problem:
        print(f"compare_peer: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found = {"model": args.model, "threads": args.threads, "rounds": args.rounds, "results": results}
    print(json.dumps(found) if args.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
