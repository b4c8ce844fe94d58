"""The command ``moec-zarr verify``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer

from moec_zarr.cli import console
from moec_zarr.cli.options import storage_options
from moec_zarr.cli.tables import ProgressDisplay, counted, number, rebuilt_text, table
from moec_zarr.conversion.verify import Verification
from moec_zarr.conversion.verify import verify as verify_store

__all__ = ["verify"]

_KINDS = ("missing", "damaged", "differs")
_SHOWN = 20  # problems in a table; --json has all


def verify(
    store: Annotated[str, typer.Argument(help="An archive made by convert; path or URL.")],
    against: Annotated[
        str | None, typer.Option(metavar="SRC", help="Compare with the source, or with a part of it.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make missing and damaged chunks again, from --against.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes of a repair; by default one for each core.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A dask scheduler to repair on.")
    ] = None,
    break_lock: Annotated[
        bool,
        typer.Option(
            "--break-lock",
            help="Take over STORE from a run that was killed on another machine, to repair it.",
        ),
    ] = False,
    storage_option: console.StorageOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")] = False,
    as_json: console.AsJson = False,
    verbose: console.Verbose = False,
) -> None:
    """Check that STORE is whole: checksums, shapes, types and records of all that is stored.

    It exits with 1 if something is missing, damaged, or farther from the source than was recorded.
    """
    console.say(verbose)
    with nullcontext() if quiet else ProgressDisplay(console.err) as shown:
        result = verify_store(
            store, against, repair=repair, client=scheduler, workers=workers, break_lock=break_lock,
            storage_options=storage_options(storage_option), progress=shown,
            say=None if shown is None else shown.say,
        )  # fmt: skip
    if as_json:
        console.print_json(asdict(result) | {"ok": result.ok})
    elif not quiet:
        _show(result)
    if not result.ok:
        console.complain(_summary(result))
        raise typer.Exit(1)


def _show(result: Verification) -> None:
    compared = any(each.compared for each in result.variables.values())
    columns = ["variable", "chunks", "missing", "damaged", "differ"]
    columns += ["compared", "PSNR dB", "max error"] if compared else []
    rows = []
    for name, each in result.variables.items():
        kinds = [problem.kind for problem in result.problems if problem.variable == name]
        row = [
            name,
            str(each.chunks),
            *(str(kinds.count(kind)) for kind in ("missing", "damaged", "differs")),
        ]
        if compared:
            quality = each.quality
            row += [str(each.compared), number(quality.psnr if each.compared else None)]
            row += [number(quality.max_error if each.compared else None, 3)]
        rows.append(row)
    console.out.print(table(columns, rows))
    if result.problems:
        lines = [(p.variable, str(p.chunk), p.kind, p.reason) for p in result.problems[:_SHOWN]]
        console.out.print()
        console.out.print(table(("variable", "chunk", "", "what was found"), lines))
    if rebuilt := {name: each.rebuilt for name, each in result.variables.items() if each.rebuilt}:
        console.out.print(rebuilt_text(rebuilt), highlight=False, soft_wrap=True)
    if result.status:
        console.out.print(f"the store says: {result.status}", highlight=False, soft_wrap=True)
    if result.repaired:
        console.out.print(f"{counted(result.repaired, 'chunk')} repaired", highlight=False)


def _summary(result: Verification) -> str:
    kinds = [problem.kind for problem in result.problems]
    found = ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("missing", "damaged", "differs") if kind in kinds
    )
    more = f"; --json names all {len(kinds)}" if len(kinds) > _SHOWN else ""
    return f"the archive is not whole: {found.replace('differs', 'that differ')}{more}"
