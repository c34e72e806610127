"""Results as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localllm.bench.measure import Result
from localllm.bench.roof import Roof


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns, the first one to the left and the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def results_table(results: list[dict[str, Any]]) -> str:
    """results are those of `bench --json`."""
    rows: list[Sequence[str]] = [
        ("test", "batch", "depth", "tokens/s", "min", "max", "GB/s", "of roof", "J/token", "scheduler us")
    ]
    for one in results:
        speed = one["tokens_per_second"]
        rows.append(
            (
                f"{one['test']} {one['tokens']}", str(one["batch"]), str(one["depth"]),
                *(f"{speed[name]:.1f}" for name in ("median", "min", "max")), f"{one['gb_s']:.2f}",
                _shown(one["share_of_roof"], "{:.1%}"), _shown(one["joules_per_token"], "{:.3g}"),
                f"{one['scheduler_us_per_step']:.0f}",
            )
        )  # fmt: skip
    return aligned(rows)


def roof_line(roof: Roof) -> str:
    if roof == Roof():
        return "roof: not known for this device"
    parts = [_shown(roof.read_gb_s, "reads {:.1f} GB/s"), _shown(roof.int8_tops, "int8 {:.2f} TOPS")]
    parts += [_shown(roof.bf16_tflops, "bf16 {:.2f} TFLOPS")]
    return "roof: " + ", ".join(part for part in parts if part != "-")


def profile_table(result: Result) -> str:
    """The operations of one step of the median repeat, all layers together."""
    one = result.typical
    steps = one.steps
    rows: list[Sequence[str]] = [("operation", "calls", "ms", "share", "G multiply-adds/s", "GB/s")]
    for op in one.work:
        seconds = 1e-9 * op.nanoseconds
        rows.append(
            (
                op.operation, f"{op.calls / steps:.0f}", f"{1e3 * seconds / steps:.3f}", f"{seconds / one.seconds:.1%}",
                _rate(op.multiply_adds, op.nanoseconds), _rate(op.bytes, op.nanoseconds),
            )
        )  # fmt: skip
    outside = one.seconds - one.native_seconds
    rows.append(("python", "", f"{1e3 * outside / steps:.3f}", f"{outside / one.seconds:.1%}", "", ""))
    rows.append(("one step", "", f"{1e3 * one.seconds / steps:.3f}", "", "", ""))
    return f"{result.test}, mean of {steps} steps\n{aligned(rows)}"


def _rate(amount: int, nanoseconds: int) -> str:
    return f"{amount / nanoseconds:.2f}" if amount and nanoseconds else ""


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
