"""The command ``moec-zarr convert``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moec_zarr.archive.status import Progress
from moec_zarr.cli import console
from moec_zarr.cli.options import storage_options
from moec_zarr.cli.tables import (
    ProgressDisplay,
    bytes_text,
    counted,
    duration,
    plan_table,
    rebuilt_text,
    summary_table,
)
from moec_zarr.cli.trial import announce, trial_result, trial_table
from moec_zarr.cli.variables import codecs_of
from moec_zarr.config import config
from moec_zarr.conversion.plan.job import Job, plan_job
from moec_zarr.conversion.plan.options import ConversionOptions, Incomplete, OnBudget
from moec_zarr.conversion.plan.source import open_source
from moec_zarr.conversion.plan.trial import try_plan
from moec_zarr.conversion.work.run import count_done, execute
from moec_zarr.errors import MoECError
from moec_zarr.settings import TARGETS, Effort, Model, Scale

__all__ = ["convert"]


def convert(
    src: Annotated[
        str,
        typer.Argument(help="A zarr store, a file that xarray opens, or a glob of such files; path or URL."),
    ],
    dst: Annotated[str, typer.Argument(help="The zarr store to create; path or URL.")],
    ratio: Annotated[
        float | None,
        typer.Option(
            help="How many times smaller each chunk becomes, at least. "
            "Give one of --ratio, --psnr, --max-error, --max-relative-error, or both of these bounds."
        ),
    ] = None,
    psnr: Annotated[float | None, typer.Option(help="PSNR that each chunk reaches, in dB, at least.")] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Largest absolute error of any value, in units of the data."),
    ] = None,
    max_relative_error: Annotated[
        float | None,
        typer.Option(help="Largest error of any value over its magnitude; zeros and signs are kept."),
    ] = None,
    scale: Annotated[
        Scale | None,
        typer.Option(help="What --ratio and --psnr measure: errors of values, or of their logarithms (log)."),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="Compress only this variable, with settings of its own "
            "such as t2m:ratio=200; may be repeated. NAME may be a path or a pattern, as '*/t2m'. "
            "By default all fields are compressed; NAME:lossless excludes one.",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE.TOML", help="A file of settings, for all variables and for single ones."),
    ] = None,
    chunks: Annotated[
        str | None,
        typer.Option(metavar="DIM=SIZE,...", help="Chunk sizes; those of other dimensions are chosen."),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(metavar="DIM=SIZE,...", help="Shard sizes, for fewer and larger files and tasks."),
    ] = None,
    zarr_format: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=3,
            autocompletion=console.zarr_formats,
            help="Zarr format of the destination; by default 3, and that of an image.",
        ),
    ] = None,
    effort: Annotated[
        Effort | None, typer.Option(help="How long a fit may take; by default balanced.")
    ] = None,
    model: Annotated[
        Model | None, typer.Option(help="What may be fitted; by default auto, which keeps the best.")
    ] = None,
    experts: Annotated[
        int | None, typer.Option(help="Number of experts of a network; chosen by default.")
    ] = None,
    exact: Annotated[
        list[float] | None,
        typer.Option(help="A value, such as 0, to keep exactly wherever it stands; may be repeated."),
    ] = None,
    missing: Annotated[float | None, typer.Option(help="A value to keep exactly, as NaN is.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random in a fit; by default 0.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes on this machine; by default one for each core."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="Address of a dask scheduler to run on, such as tcp://host:8786."),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="Where networks are fitted.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--overwrite", help="Continue where an earlier run stopped, or replace what is there."
        ),
    ] = True,
    append: Annotated[
        str | None,
        typer.Option(
            metavar="DIM",
            help="Add what is new along this dimension to the store at DST, with the settings of that store.",
        ),
    ] = None,
    incomplete: Annotated[
        Incomplete | None,
        typer.Option(
            help="Appended steps that do not fill a chunk: hold them back, or fit that chunk again next time."
        ),
    ] = None,
    on_budget: Annotated[
        OnBudget,
        typer.Option(
            help="Chunks that cannot be as small as --ratio asks: keep them at the ratio they reach, or fail."
        ),
    ] = "keep",
    rebuild_levels: Annotated[
        bool,
        typer.Option(
            "--rebuild-levels",
            help="Make coarser levels of images again of the finest one, as it is decoded.",
        ),
    ] = False,
    train: Annotated[
        bool | None,
        typer.Option(
            "--train/--no-train",
            help="Train a dictionary for each variable first, or for none; by default where there are many "
            "chunks. Chunks cannot be read without the metadata then.",
        ),
    ] = None,
    break_lock: Annotated[
        bool,
        typer.Option("--break-lock", help="Take over DST from a run that was killed on another machine."),
    ] = False,
    storage_option: console.StorageOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")
    ] = False,
    trial: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Fit N chunks of each variable at several targets, without writing anything.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")] = False,
    as_json: console.AsJson = False,
    verbose: console.Verbose = False,
) -> None:
    """Convert SRC into a compressed zarr store at DST.

    The same command continues a run that was killed. The exit code is 1 if chunks failed.
    """
    console.say(verbose)
    stores = storage_options(storage_option)
    if scheduler is not None and workers is not None:
        raise MoECError("--workers counts those of a cluster made here; leave it out with --scheduler")
    given = {
        "ratio": ratio, "psnr": psnr, "max_error": max_error,
        "max_relative_error": max_relative_error, "scale": scale, "exact": exact or None, "effort": effort,
        "model": model, "experts": experts, "missing": missing, "seed": seed,
    }  # fmt: skip
    # An append takes all settings from the store; where none are given, there must be one.
    any_given = var or settings or any(value is not None for value in given.values())
    targeted = var or settings or any(given[name] is not None for name in TARGETS)
    if append is not None and any_given and not targeted:
        raise MoECError(
            "an append takes all settings from the archive: leave them out; or give a target, such as "
            "--ratio 100, to make a new one"
        )
    options = ConversionOptions(
        codec=codecs_of(given, var, settings) if append is None or any_given else None,
        chunks=_sizes("--chunks", chunks) or "auto", shards=_sizes("--shards", shards),
        zarr_format=None if zarr_format is None else 3 if zarr_format == 3 else 2,
        append=append, incomplete=incomplete, on_budget=on_budget, rebuild_levels=rebuild_levels,
        train=train, client=scheduler, workers=workers, resume=resume, break_lock=break_lock,
        storage_options=stores,
    )  # fmt: skip
    if device is not None:
        config.set(device=device)
    with nullcontext() if quiet or dry_run or trial is not None else ProgressDisplay(console.err) as shown:
        if shown is not None:
            shown.say("opening the source")
        with open_source(src, stores) as ds:
            job = plan_job(ds, dst, options)
            if trial is not None and not dry_run:
                trials = announce(try_plan(job.plan, job.ds, trial), quiet)
                if as_json:
                    console.print_json(trial_result(trials))
                else:
                    console.out.print(trial_table(trials))
                return
            if dry_run:
                _show_plan(job, count_done(job, src, dst, options), as_json)
                return
            result = execute(job, src, dst, options, shown)
    if as_json:
        console.print_json(_result(result))
    elif not quiet:
        console.out.print(summary_table(result.summaries()))
        if job.held:
            console.out.print(_held_text(job), highlight=False, soft_wrap=True)
        if rebuilt := {each.name: each.rebuilt.finest for each in job.plan.variables if each.rebuilt}:
            console.out.print(rebuilt_text(rebuilt), highlight=False, soft_wrap=True)
        if result.file_bytes and result.bytes_out and not result.failures:
            console.out.print(
                f"the source's files take {bytes_text(result.file_bytes)}, "
                f"{result.file_bytes / result.bytes_out:.4g} times what is stored of these variables",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    for failure in result.failures[:10]:
        console.complain(
            f"chunk {failure.index} of {failure.variable!r}, {counted(failure.attempts, 'attempt')}: "
            f"{console.on_command_line(failure.error)}"
        )
    if result.failures:
        console.complain(
            f"{len(result.failures)} of {job.plan.tasks} chunks failed; the same command tries them again"
        )
        raise typer.Exit(1)


def _sizes(option: str, text: str | None) -> dict[str, int] | None:
    """Sizes by dimension, from ``time=24,lat=-1``."""
    if text is None:
        return None
    sizes = {}
    for part in text.split(","):
        dim, _, size = part.partition("=")
        try:
            sizes[dim.strip()] = int(size)
        except ValueError:
            raise MoECError(
                f"{option} takes sizes by dimension, such as time=24,lat=-1; got {part!r}"
            ) from None
    return sizes


def _show_plan(job: Job, done: dict[str, int], as_json: bool) -> None:
    """Return the plan of a dry run, less what an earlier run has done."""
    planned = job.plan
    left = sum(
        each.seconds * (1 - done.get(each.name, 0) / each.tasks) for each in planned.variables if each.tasks
    )
    training = sum(each.training_seconds for each in planned.variables)
    left += training
    if as_json:
        figures = {
            each.name: {
                "tasks": each.tasks,
                "done": done.get(each.name, 0),
                "bytes_in": each.nbytes,
                "bytes_out": each.stored_bytes,
                "core_seconds": each.seconds,
                "training_chunks": each.training,
                "training_core_seconds": each.training_seconds,
                "dictionary_bytes": each.dictionary_bytes,
                "reason": each.reason,
            }
            for each in planned.variables
        }
        growth = job.growth and {"dim": job.growth.dim, "added": job.growth.added}
        console.print_json(
            planned.to_dict()
            | {"estimates": figures, "core_seconds_left": left, "append": growth, "held": job.held}
        )
        return
    lines = [
        f"{planned.tasks} tasks read {bytes_text(planned.read_bytes)}; about {duration(planned.seconds)} "
        "on one core, by a simple model that counts fits alone"
    ]
    if index := sum(each.index_bytes for each in planned.compressed):
        lines.append(f"{bytes_text(index)} of what is stored are the shards' indexes, beyond the ratio")
    if lossless := [each for each in planned.variables if each.codec is None]:
        lines.append(
            f"{counted(len(lossless), 'variable')} of {bytes_text(sum(each.nbytes for each in lossless))} "
            "stay as they are, without loss"
        )
    if job.growth is not None:
        lines.append(
            f"{job.growth.dim} grows by {job.growth.added} to {job.growth.length + job.growth.added}"
        )
    if job.held:
        lines.append(_held_text(job))
    if trained := [each for each in planned.compressed if each.training]:
        names = ", ".join(f"{each.name} on {counted(each.training, 'chunk')}" for each in trained)
        share = training / sum(each.seconds for each in trained)
        lines.append(
            f"dictionaries are trained first, of {names}: about {duration(training)} on one core, "
            f"{share:.0%} of the time of their fits; --trial N tells what they bring, --no-train leaves them "
            "out"
        )
    if any(done.values()):
        lines.append(f"{sum(done.values())} of the tasks are done; the others take about {duration(left)}")
    console.out.print(plan_table(planned))
    for line in lines:
        console.out.print(line, highlight=False, soft_wrap=True)


def _held_text(job: Job) -> str:
    return f"{counted(job.held, 'step')} at the end fill no chunk, and are kept back"


def _result(result: Progress) -> dict[str, Any]:
    return {
        "variables": {
            name: {
                "codec": each.codec and each.codec.configuration(),
                "done": each.done,
                "tasks": each.tasks,
                "bytes_in": each.bytes_in,
                "bytes_out": each.bytes_out,
                "ratio": each.ratio,
                "psnr": each.quality.psnr,
                "max_error": each.quality.max_error,
            }
            for name, each in result.summaries().items()
        },
        "resumed": result.resumed,
        "failures": [asdict(failure) for failure in result.failures],
    }
