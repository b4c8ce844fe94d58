"""``moec-zarr report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moec_zarr.cli.console import Criteria, StorageOption, Variables, Verbose, out, say
from moec_zarr.cli.options import storage_options
from moec_zarr.report.page.gathering import write_report
from moec_zarr.report.verdict.criteria import read_criteria

__all__ = ["report"]


def report(
    store: Annotated[str, typer.Argument(help="A zarr store that was compressed with this package.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The original, to compare a few slices with; path or URL."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.HTML", help="The page to write.")
    ] = Path("report.html"),
    var: Variables = None,
    criteria: Criteria = None,
    storage_option: StorageOption = None,
    verbose: Verbose = False,
) -> None:
    """Write a page about STORE to look at before it is trusted: a verdict, sizes, errors, slices, spectra."""
    say(verbose)
    options = storage_options(storage_option)
    limits = None if criteria is None else read_criteria(criteria)
    write_report(store, output, against=against, variables=var, criteria=limits, storage_options=options)
    out.print(f"wrote {output}", highlight=False, soft_wrap=True)
