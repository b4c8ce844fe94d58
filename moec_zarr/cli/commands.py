"""The command ``moec-zarr``."""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from moec_zarr.adapters.choice import no_fields
from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.tree import join_path, select, split
from moec_zarr.archive.inspection import compressed_arrays, inspect_streams
from moec_zarr.archive.quality_table import open_quality
from moec_zarr.archive.storage import store_at
from moec_zarr.cli.console import (
    AsJson,
    Criteria,
    Run,
    StorageOption,
    Variables,
    Verbose,
    complain,
    on_command_line,
    print_json,
    say,
)
from moec_zarr.cli.console import out as _out
from moec_zarr.cli.convert import convert
from moec_zarr.cli.migrate import migrate
from moec_zarr.cli.options import storage_options
from moec_zarr.cli.quality import quality_result, quality_tables
from moec_zarr.cli.report import report
from moec_zarr.cli.tables import (
    bytes_text,
    number,
    streams_row,
    table,
)
from moec_zarr.cli.verify import verify
from moec_zarr.conversion.plan.source import open_source
from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.alignment import align
from moec_zarr.report.comparison.labels import with_places
from moec_zarr.report.comparison.metrics import Comparison
from moec_zarr.report.comparison.metrics import compare as compare_datasets
from moec_zarr.report.comparison.plot import plot_comparison
from moec_zarr.report.verdict.criteria import check_criteria, read_criteria
from moec_zarr.report.verdict.judge import judge

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compress scientific arrays in zarr stores, check them, and look into them.",
)


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
        tables = {name: tables[name] for name in select(var, tables)}
        if as_json:
            print_json(quality_result(tables))
        else:
            for shown in quality_tables(tables):
                _out.print(shown, "")
        return
    arrays = compressed_arrays(place)
    streams = {}
    for name in select(var, arrays):
        infos = dict(inspect_streams(arrays[name]))
        streams[name] = (arrays[name], infos)
    if as_json:
        print_json(
            {
                name: {
                    "shape": array.shape,
                    "chunks": array.chunks,
                    "dictionary_bytes": _dictionary_bytes(array),
                    "streams": [{"index": index} | asdict(info) for index, info in infos.items()],
                }
                for name, (array, infos) in streams.items()
            }
        )
        return
    rows = [(name, *streams_row(list(infos.values()))) for name, (_, infos) in streams.items()]
    columns = (
        "streams", "bytes", "ratio", "PSNR dB", "max error", "bound", "experts", "load", "bytes by section"
    )  # fmt: skip
    _out.print(table(("variable", *columns), rows))
    for name, (array, _) in streams.items():
        if size := _dictionary_bytes(array):
            _out.print(
                f"streams of {name} are read with a dictionary of {bytes_text(size)} in its metadata",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    if chunks:
        for name, (_, infos) in streams.items():
            lines = [(str(index), info.kind, *streams_row([info])[1:]) for index, info in infos.items()]
            _out.print()
            _out.print(table(("chunk", "kind", *columns[1:]), lines, title=name))


def _dictionary_bytes(array: Any) -> int:
    """Return the bytes of the dictionary in the metadata of an array; 0 without one."""
    codec = codec_of(array)
    return 0 if codec is None else codec.dictionary_bytes


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
    criteria: Criteria = None,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure how far B is from A and what it keeps, variable by variable, where their coordinates agree."""
    say(verbose)
    options = storage_options(storage_option)
    limits = None if criteria is None else read_criteria(criteria)
    with open_source(a, options) as first, open_source(b, options) as second:
        both = [
            str(name) for name, each in first.data_vars.items() if each.dtype.kind in "iuf" and name in second
        ]
        describing = {
            join_path(path, str(name)): what
            for path, group in split(first, inherit=True).items()
            for name, what in no_fields(group).items()
            if what in ("bounds", "grid mapping")
        }
        names = select(var, both) if var else [name for name in both if name not in describing]
        if not names:
            raise MoECError(f"{a} and {b} have no field of numbers in common; name other variables by --var")
        for which, mine, other in ((a, first, second), (b, second, first)):
            if alone := [str(name) for name in mine.data_vars if name not in other.variables and not var]:
                print(f"only in {which}, not compared: {', '.join(alone)}", file=sys.stderr)
        if skipped := [f"{name} ({describing[name]})" for name in both if name not in names and not var]:
            print(f"no fields, not compared unless --var names them: {', '.join(skipped)}", file=sys.stderr)
        check_criteria(limits, names)
        results = compare_datasets(first[names], second[names])
        verdicts = judge(first[names], second[names], criteria=limits)
        if as_json:
            judged = {name: [asdict(each) for each in found.judgements] for name, found in verdicts.items()}
            print_json({name: {**asdict(each), "verdict": judged[name]} for name, each in results.items()})
        else:
            rows = [
                (name, number(each.psnr), number(each.psnr_dtype), number(each.nrmse, 3), number(each.ssim),
                 number(each.max_error, 3), str(each.n_special_mismatch))
                for name, each in results.items()
            ]  # fmt: skip
            columns = ("PSNR dB", "at dtype's peak", "NRMSE", "SSIM", "max error", "NaN differ")
            _out.print(table(("variable", *columns), rows))
            for verdict in verdicts.values():
                _out.print(str(verdict), highlight=False, markup=False)
        for text in dict.fromkeys(text for each in results.values() for text in each.left_out):
            print(f"not compared: {text}", file=sys.stderr)
        if plot is not None:
            _plot(plot, {name: _pair(first[name], second[name]) for name in names}, results)


def _pair(first: Any, second: Any) -> tuple[Any, Any]:
    """Return both arrays where they agree, the first with the places that an image says of its voxels."""
    x, y, _ = align(with_places(first), second)
    return x, y


def _plot(plot: Path, pairs: dict[str, tuple[Any, Any]], results: dict[str, Comparison]) -> None:
    """Draw what is at least a slice; say what is less."""
    drawn = [name for name, (x, _) in pairs.items() if sum(size > 1 for size in x.shape) >= 2]
    less = [name for name in pairs if name not in drawn]
    if not drawn:
        raise MoECError(
            f"nothing to draw: {', '.join(map(repr, less))} have fewer than two axes longer than 1; "
            "leave --plot out, or name a field of more axes by --var"
        )
    paths = {
        name: plot if len(pairs) == 1 else plot.with_stem(f"{plot.stem}-{name.replace('/', '-')}")
        for name in drawn
    }
    if len(set(paths.values())) < len(drawn):
        raise MoECError("two variables would be drawn into one file; draw one after the other by --var")
    for name, path in paths.items():
        plot_comparison(*pairs[name], path, psnr=results[name].psnr)
    if less:
        print(f"fewer than two axes longer than 1, not drawn: {', '.join(less)}", file=sys.stderr)


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


for _command in convert, verify, migrate, report:
    app.command()(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line and exit code 2."""

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
