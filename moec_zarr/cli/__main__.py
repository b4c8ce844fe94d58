"""``python -m moec_zarr.cli``."""

from __future__ import annotations

from moec_zarr.cli.commands import main

main()
