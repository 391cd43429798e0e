"""Commands that train, or say what training would do."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgan.config import Config, settings
from samgan.errors import UsageError
from samgan.presets import PLUS, PRESETS, SCALES, preset_document

if TYPE_CHECKING:
    from samgan.data import PreparedSet

from samgan.commands.settings import _configuration


def _train(options: argparse.Namespace) -> tuple[Any, str]:
    if options.out is None and (options.resume or not options.dry_run):
        raise UsageError("which run folder? --out RUN")
    prepared = None
    if options.data is not None:
        from samgan.data import PreparedSet

        prepared = PreparedSet.open(options.data)
    config = _configuration(options, prepared)
    if options.dry_run:
        return _dry_run(config, prepared, options.processes * options.hosts)
    if prepared is None:
        if options.classes and Path(options.classes[-1]).is_dir():
            raise UsageError(f"--classes took {options.classes[-1]} for a class: put the prepared set before it")
        raise UsageError("which prepared set? samgan train DATA --out RUN (samgan prepare makes one)")
    from samgan import api

    names = ("resume", "minutes", "device", "processes", "hosts", "tensorboard", "start", "on_collapse")
    run = api.train(config, prepared, options.out, **{name: getattr(options, name) for name in names})
    best = run.best()
    checkpoint, images_seen = run.checkpoints()[-1], run.last_step() * config.training.batch_size
    document = {
        "run": str(run.path),
        "images_seen": images_seen,
        "checkpoint": str(checkpoint),
        "best": best.to_dict() if best else None,
    }
    return document, f"{run.path}: {images_seen / 1000:g} kimg done; next: samgan sample {run.path} --out DIR"


def _dry_run(config: Config, prepared: "PreparedSet | None", processes: int) -> tuple[Any, str]:
    from samgan.training import check_fit, choose_classes, plan

    if prepared is not None:
        config = choose_classes(config, prepared)
        images = len(prepared.indices("train", config.data.classes))
        check_fit(config, (images, *prepared.images.shape[1:]), processes)
    cost = plan(config).to_dict()
    document = {"config": config.to_dict(), **cost}
    lines = [
        f"{key} = {json.dumps(getattr(getattr(config, key.split('.')[0]), key.split('.')[1]))}"
        for key, *_ in settings()
    ]
    lines += [
        "",
        f"generator      {cost['generator_parameters']:>14,} parameters",
        f"discriminator  {cost['discriminator_parameters']:>14,} parameters",
        f"one step       {cost['flops_per_step'] / 1e9:>14,.1f} GFLOP",
        f"memory         {cost['memory_bytes'] / 2**20:>14,.0f} MiB, about",
        f"length         {cost['steps']:>14,} steps, {cost['kimg']:g} kimg",
    ]
    return document, "\n".join(lines)


def _presets(options: argparse.Namespace) -> tuple[Any, str]:
    lines = [f"{'preset':<11} SN AM FA  optimizer  rate    loss     data     paper's FID   MR    MG"]
    mark = {True: "y ", False: ". "}
    for row in PRESETS:
        real, generated = (
            f"{x:.2f}" if x is not None else "-" for x in (row.paper_ms_ssim_real, row.paper_ms_ssim_generated)
        )
        lines.append(
            f"{row.name:<11} {mark[row.spectral_norm]} {mark[row.attention]} {mark[row.flip]}  {row.optimizer:<9}  "
            f"{row.learning_rate:<6g}  {row.loss:<7}  {row.data:<7}  {row.paper_fid:>11g}  {real:>4}  {generated:>4}"
        )
    lines += [
        "",
        "SN spectral norm, AM self-attention, FA random flips; MR, MG: MS-SSIM of real, generated pairs (the paper's).",
        "All rows: pixel norm, minibatch std, 64x64, batch 16. --scale paper: 512 channels, 1,808 kimg (500 epochs of",
        f"3,616 images); --scale cpu: {SCALES['cpu']['max_channels']} channels, {SCALES['cpu']['kimg']:g} kimg.",
        "",
        f"{PLUS}, our own recipe, is no row of the paper: `samgan train --dry-run` prints it. --scale cpu or gpu.",
    ]
    return preset_document(), "\n".join(lines)


def _demo(options: argparse.Namespace) -> tuple[Any, str]:
    from samgan import api
    from samgan.scoring import format_table

    done = api.demo(options.out, kimg=options.kimg, device=options.device)
    return done.to_dict(), f"{api.DEMO_NOTE}\n\n{format_table(done.scores)}\n{done.report}"
