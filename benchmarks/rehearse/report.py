"""Tables of what stages of a rehearsal took, and of what full runs would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rehearse.full_run import Estimate, totals

_SHOWN = 1.0  # core hours


def processor() -> str:
    """The name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unnamed processor")


def stage_table(estimates: Sequence[Estimate]) -> str:
    """Every stage of a rehearsal, with its full run on one core of this processor."""
    head = ("run", "stage", "here", "start-up", "per item", "peak", "items", "core hours", "memory")
    rows = [head]
    for one in estimates:
        rows.append(
            (
                one.run,
                one.stage,
                f"{one.seconds:.1f} s",
                f"{one.startup:.1f} s",
                f"{one.per_item:.2f} s",
                _gib(one.peak),
                "?" if one.items is None else f"{one.items:,}",
                "?" if one.hours is None else f"{one.hours:.2f}",
                _gib(one.memory),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    hours, memory = totals(estimates)
    return "\n".join([*lines, f"the full run: {hours:.1f} core hours, at most {_gib(memory)}"])


def full_table(estimates: Mapping[str, Sequence[Estimate]]) -> str:
    """Stages of full runs that take long, in Markdown.

    Args:
        estimates: by preset or table.
    """
    lines = [
        f"One core of {processor()}:",
        "",
        "| preset | stage | per image or crop | images or crops | core hours | memory |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for target, stages in estimates.items():
        for one in stages:
            if one.hours is not None and one.hours >= _SHOWN:
                run = one.run.removeprefix(target).strip("/")
                stage = f"{one.stage} ({run})" if run else one.stage
                lines.append(
                    f"| `{target}` | {stage} | {one.per_item:.2f} s | {one.items:,} "
                    f"| {one.hours:,.1f} | {_gib(one.memory)} |"
                )
        hours, memory = totals(stages)
        lines.append(f"| `{target}` | **all stages** | | | {hours:,.1f} | {_gib(memory)} |")
    return "\n".join(lines) + "\n"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
