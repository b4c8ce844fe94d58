"""``python -m moec_zarr.demo``."""

from __future__ import annotations

from moec_zarr.demo.run import main

main()
