"""``moec-zarr migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from moec_zarr.archive import migration
from moec_zarr.cli.console import AsJson, StorageOption, Verbose, out, print_json, say, zarr_formats
from moec_zarr.cli.options import storage_options

__all__ = ["migrate"]


def migrate(
    store: Annotated[str, typer.Argument(help="A zarr store; path or URL.")],
    zarr_format: Annotated[
        int, typer.Option(min=2, max=3, autocompletion=zarr_formats, help="The new format.")
    ],
    storage_option: StorageOption = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Rewrite the metadata of STORE in the other zarr format; streams stay as they are."""
    say(verbose)
    options = storage_options(storage_option)
    changed = migration.migrate(store, 3 if zarr_format == 3 else 2, storage_options=options)
    if as_json:
        print_json({"zarr_format": zarr_format, "rewritten": changed})
    elif changed:
        out.print(f"{len(changed)} groups and arrays have zarr format {zarr_format} now", highlight=False)
    else:
        out.print(f"nothing to do: it has zarr format {zarr_format}", highlight=False)
