"""Commands that run studies over many models."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from samgan.commands.settings import _configuration
from samgan.errors import UsageError


def _table2(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.studies import SUSTAINED_TFLOPS, check_settings, choose_rows, plan_rows, run_table

    if options.budget_minutes is not None and options.kimg is not None:
        raise UsageError("--budget-minutes or --kimg: one of them is the length")
    from samgan.data import PreparedSet

    resolution = PreparedSet.open(options.data).resolution if options.data else 64
    rows = choose_rows(options.rows, options.seeds, options.faces is not None, resolution)
    if options.dry_run:
        check_settings(options.settings, options.scale)
        costs = plan_rows(rows, options.scale, resolution, options.kimg, options.settings, options.budget_minutes)
        text = [f"{'row':<24} seeds  parameters (M)  GFLOP a step  memory (GiB)    steps  GPU-hours"]
        text += [
            f"{cost['name']:<24} {cost['seeds']:>5}  "
            f"{(cost['generator_parameters'] + cost['discriminator_parameters']) / 1e6:>14.1f}  "
            f"{cost['flops_per_step'] / 1e9:>12.0f}  {cost['memory_bytes'] / 2**30:>12.1f}  {cost['steps'] or '-':>7}  "
            f"{cost['gpu_hours']:>9.1f}"
            for cost in costs
        ]
        total = sum(cost["gpu_hours"] for cost in costs)
        jobs = sum(cost["seeds"] for cost in costs)
        pace = f" where a GPU sustains {SUSTAINED_TFLOPS:g} TFLOP/s (assumed)" * (options.budget_minutes is None)
        text.append(f"{jobs} jobs, {total:.0f} GPU-hours{pace}; memory as of one process on a CPU")
        return costs, "\n".join(text)
    for name in ("data", "out"):
        if getattr(options, name) is None:
            raise UsageError("samgan table2 DATA --out FOLDER: both are needed, but for --dry-run")
    names = ("rows", "seeds", "json", "status", "run", "dry_run")
    given = {name: value for name, value in vars(options).items() if name not in names}
    lines, files = run_table(rows, **given, command=shlex.join(["samgan", *sys.argv[1:]]))
    return lines, f"{files[0].read_text('utf-8')}\n{files[-1]}"


def _balance(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan.data import PreparedSet
    from samgan.studies import balance, format_balance

    prepared = PreparedSet.open(options.data)
    names = list(options.classes) or prepared.classes
    runs: dict[str, Path] = {}
    for source in options.runs:
        name, _, path = source.partition("=")
        of_class = bool(path) and name in names
        label = name if of_class else ""
        if label in runs:
            raise UsageError(f"--run {source}: {label or 'all classes'} has {runs[label]} already; name CLASS=RUN")
        runs[label] = Path(path if of_class else source)
    config = _configuration(argparse.Namespace(**{**vars(options), "resume": False, "classes": ()}), prepared)
    others = ("json", "settings", "status", "run", "data", "out", "runs", "preset", "scale", "config")
    given = {name: value for name, value in vars(options).items() if name not in others}
    document, page = balance(prepared, options.out, config, runs=runs, **given)
    return document, f"{format_balance(document)}\n{page}"
