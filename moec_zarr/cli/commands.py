"""The command ``moec-zarr``."""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from moec_zarr.cli.console import AsJson, Run, Variables, Verbose, complain, on_command_line, print_json, say
from moec_zarr.cli.console import err as _err
from moec_zarr.cli.console import out as _out
from moec_zarr.cli.migrate import migrate
from moec_zarr.cli.options import storage_options
from moec_zarr.cli.quality import quality_result, quality_tables
from moec_zarr.cli.report import report
from moec_zarr.cli.tables import (
    ProgressDisplay,
    bytes_text,
    counted,
    duration,
    number,
    plan_table,
    streams_row,
    summary_table,
    table,
)
from moec_zarr.cli.trial import announced, trial_result, trial_table
from moec_zarr.cli.variables import codecs_of
from moec_zarr.config import config
from moec_zarr.conversion.append import Incomplete
from moec_zarr.conversion.job import Job, plan_job
from moec_zarr.conversion.places import store_at
from moec_zarr.conversion.quality_table import open_quality
from moec_zarr.conversion.run import execute, tasks_done
from moec_zarr.conversion.source import open_source
from moec_zarr.conversion.status import Progress
from moec_zarr.conversion.trial import try_plan
from moec_zarr.errors import MoECError
from moec_zarr.report.alignment import align
from moec_zarr.report.inspection import compressed_arrays, inspect_streams
from moec_zarr.report.metrics import compare as compare_datasets
from moec_zarr.report.plot import plot_comparison
from moec_zarr.settings import Effort, Model

__all__ = [
    "AsJson",
    "StorageOption",
    "Verbose",
    "app",
    "complain",
    "error_console",
    "main",
    "output_console",
    "print_json",
    "say",
]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compress scientific arrays in zarr stores, check them, and look into them.",
)


def output_console() -> Console:
    """Where results go."""
    return _out


def error_console() -> Console:
    """Where progress goes."""
    return _err


def _show_version(asked: bool) -> None:
    if asked:
        print(f"moec-zarr {version('moec_zarr')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Option of fsspec for URLs, such as endpoint_url=http://host:9000; may be repeated, or JSON.",
    ),
]


@app.command()
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
            "Give one of --ratio, --psnr, --max-error."
        ),
    ] = None,
    psnr: Annotated[float | None, typer.Option(help="PSNR that each chunk reaches, in dB, at least.")] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Largest absolute error of any value, in units of the data."),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="Compress only this variable, with settings of its own "
            "such as t2m:ratio=200; may be repeated. "
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
    zarr_format: Annotated[int, typer.Option(min=2, max=3, help="Zarr format of the destination.")] = 3,
    effort: Annotated[
        Effort | None, typer.Option(help="How long a fit may take; by default balanced.")
    ] = None,
    model: Annotated[
        Model | None, typer.Option(help="What may be fitted; by default auto, which keeps the best.")
    ] = None,
    experts: Annotated[
        int | None, typer.Option(help="Number of experts of a network; chosen by default.")
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
    break_lock: Annotated[
        bool,
        typer.Option("--break-lock", help="Take over DST from a run that was killed and left its lock."),
    ] = False,
    storage_option: StorageOption = None,
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
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Convert SRC into a compressed zarr store at DST.

    The same command continues a run that was killed. The exit code is 1 if chunks failed.
    """
    say(verbose)
    stores = storage_options(storage_option)
    if scheduler is not None and workers is not None:
        raise MoECError("--workers counts those of a cluster made here; leave it out with --scheduler")
    options = {
        "ratio": ratio, "psnr": psnr, "max_error": max_error, "effort": effort, "model": model,
        "experts": experts, "missing": missing, "seed": seed,
    }  # fmt: skip
    # An append takes all settings from the store; where none are given, there must be one.
    given = var or settings or any(value is not None for value in options.values())
    codec = codecs_of(options, var, settings) if append is None or given else None
    if device is not None:
        config.set(device=device)
    with nullcontext() if quiet or dry_run or trial is not None else ProgressDisplay(_err) as shown:
        if shown is not None:
            shown.say("opening the source")
        with open_source(src, stores) as ds:
            job = plan_job(
                ds, dst, codec, chunks=_sizes("--chunks", chunks) or "auto",
                shards=_sizes("--shards", shards), zarr_format=3 if zarr_format == 3 else 2, append=append,
                incomplete=incomplete, resume=resume, storage_options=stores,
            )  # fmt: skip
            if trial is not None and not dry_run:
                trials = announced(try_plan(job.plan, job.ds, trial), quiet)
                if as_json:
                    print_json(trial_result(trials))
                else:
                    _out.print(trial_table(trials))
                return
            if dry_run:
                done = tasks_done(job, src, dst, resume=resume, storage_options=stores)
                _show_plan(job, done, as_json)
                return
            result = execute(
                job, src, dst, client=scheduler, workers=workers, resume=resume, break_lock=break_lock,
                storage_options=stores, progress=shown,
            )  # fmt: skip
    if as_json:
        print_json(_result(result))
    elif not quiet:
        _out.print(summary_table(result.summaries()))
    for failure in result.failures[:10]:
        complain(
            f"chunk {failure.index} of {failure.variable!r}, {counted(failure.attempts, 'attempt')}: "
            f"{on_command_line(failure.error)}"
        )
    if result.failures:
        complain(
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
    """The plan of a dry run, less what an earlier run has done."""
    planned = job.plan
    left = sum(
        each.seconds * (1 - done.get(each.name, 0) / each.tasks) for each in planned.variables if each.tasks
    )
    if as_json:
        figures = {
            each.name: {
                "tasks": each.tasks,
                "done": done.get(each.name, 0),
                "bytes_in": each.nbytes,
                "bytes_out": each.stored_bytes,
                "core_seconds": each.seconds,
                "reason": each.reason,
            }
            for each in planned.variables
        }
        growth = job.growth and {"dim": job.growth.dim, "added": job.growth.added}
        print_json(
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
    if job.growth is not None:
        lines.append(
            f"{job.growth.dim} grows by {job.growth.added} to {job.growth.length + job.growth.added}"
        )
    if job.held:
        lines.append(f"{counted(job.held, 'step')} at the end fill no chunk, and are kept back")
    if any(done.values()):
        lines.append(f"{sum(done.values())} of the tasks are done; the others take about {duration(left)}")
    _out.print(plan_table(planned))
    for line in lines:
        _out.print(line, highlight=False, soft_wrap=True)


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


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(help="A zarr store that was compressed with this package.")],
    var: Variables = None,
    chunks: Annotated[bool, typer.Option("--chunks", help="Show a line for each chunk.")] = False,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Show the errors and times that the conversion recorded instead."),
    ] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what the streams of STORE hold: bytes by section, experts and their load, the stored PSNR."""
    say(verbose)
    options = storage_options(storage_option)
    place = store_at(store, options) if options else store
    if quality:
        tables = open_quality(place)
        tables = {name: tables[name] for name in _chosen(var, tables)}
        if as_json:
            print_json(quality_result(tables))
        else:
            for shown in quality_tables(tables):
                _out.print(shown, "")
        return
    arrays = compressed_arrays(place)
    streams = {}
    for name in _chosen(var, arrays):
        infos = dict(inspect_streams(arrays[name]))
        streams[name] = (arrays[name], infos)
    if as_json:
        print_json(
            {
                name: {
                    "shape": array.shape,
                    "chunks": array.chunks,
                    "streams": [{"index": index} | asdict(info) for index, info in infos.items()],
                }
                for name, (array, infos) in streams.items()
            }
        )
        return
    rows = [(name or "(array)", *streams_row(list(infos.values()))) for name, (_, infos) in streams.items()]
    columns = (
        "streams", "bytes", "ratio", "PSNR dB", "max error", "bound", "experts", "load", "bytes by section"
    )  # fmt: skip
    _out.print(table(("variable", *columns), rows))
    if chunks:
        for name, (_, infos) in streams.items():
            lines = [(str(index), info.kind, *streams_row([info])[1:]) for index, info in infos.items()]
            _out.print()
            _out.print(table(("chunk", "kind", *columns[1:]), lines, title=name or None))


def _chosen(var: list[str] | None, existing: Any) -> list[str]:
    """The variables asked for, or all."""
    if absent := [name for name in var or [] if name not in existing]:
        raise MoECError(
            f"no variable {', '.join(map(repr, absent))}; there are {', '.join(map(repr, existing))}"
        )
    return list(var or existing)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="The original: anything that xarray opens.")],
    b: Annotated[str, typer.Argument(help="The decoded data: anything that xarray opens.")],
    var: Variables = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.PNG",
            help="Also draw both. With several variables, a file for each.",
        ),
    ] = None,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure how far B is from A, variable by variable, where their coordinates agree."""
    say(verbose)
    options = storage_options(storage_option)
    with open_source(a, options) as first, open_source(b, options) as second:
        both = [
            str(name) for name, each in first.data_vars.items() if each.dtype.kind in "iuf" and name in second
        ]
        names = _chosen(var, both)
        if not names:
            raise MoECError(f"{a} and {b} have no variable of numbers in common")
        for which, mine, other in ((a, first, second), (b, second, first)):
            if alone := [str(name) for name in mine.data_vars if name not in other.variables and not var]:
                print(f"only in {which}, not compared: {', '.join(alone)}", file=sys.stderr)
        results = compare_datasets(first[names], second[names])
        if as_json:
            print_json({name: asdict(each) for name, each in results.items()})
        else:
            rows = [
                (name, number(each.psnr), number(each.psnr_dtype), number(each.nrmse, 3), number(each.ssim),
                 number(each.max_error, 3), str(each.n_special_mismatch))
                for name, each in results.items()
            ]  # fmt: skip
            columns = ("PSNR dB", "at dtype's peak", "NRMSE", "SSIM", "max error", "NaN differ")
            _out.print(table(("variable", *columns), rows))
        for text in dict.fromkeys(text for each in results.values() for text in each.left_out):
            print(f"not compared: {text}", file=sys.stderr)
        if plot is not None:
            for name in names:
                path = plot if len(names) == 1 else plot.with_stem(f"{plot.stem}-{name}")
                x, y, _ = align(first[name], second[name])
                plot_comparison(x, y, path, psnr=results[name].psnr)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store and the pictures.")] = Path("demo"),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Simulate a little weather, compress it, read it back and compare."""
    say(verbose)
    import xarray as xr

    from moec_zarr.demo.run import demo as run
    from moec_zarr.demo.simulate import simulate

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        run(out)
    if as_json:
        results = compare_datasets(simulate(), xr.open_zarr(out / "simulation.zarr", consolidated=False))
        print_json({name: asdict(each) for name, each in results.items()})


app.command()(migrate)
app.command()(report)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line and exit code 2."""
    import moec_zarr.cli.verify  # noqa: F401  (adds its command)

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt  # so that a job that is ended by its scheduler gives its lock back

    before = signal.signal(signal.SIGTERM, end)
    try:
        code = app(arguments, prog_name="moec-zarr", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if Run.verbose:
            traceback.print_exc()
        text = on_command_line(" ".join(str(error).split())) or type(error).__name__
        ours = isinstance(error, (MoECError, OSError)) or hasattr(error, "format_message")  # the last: usage
        complain(text if ours else f"{type(error).__name__}: {text}")
        code = 2
    finally:
        signal.signal(signal.SIGTERM, before)
    if code == 130:  # which typer may also return
        complain("interrupted; a conversion goes on where it stopped when the command is given again")
    raise SystemExit(code or 0)
