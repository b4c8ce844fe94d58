# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""Append a new month to a store: ``python examples/append_month.py [FOLDER]``.

Existing chunks are left alone, as long as new steps begin at the boundary of a chunk. So choose chunks
along time that divide every step by which the store grows: days divide all months, weeks do not. Writes
``temperature.png``. The command line does the same:

    moec-zarr convert 'FOLDER/*.nc' FOLDER/archive.zarr --append time
"""

import sys
from pathlib import Path

from distributed import Client, LocalCluster

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate
from moec_zarr.report.comparison.plot import plot_comparison

DAY = 4  # steps of a day, here


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    both = simulate((3 * DAY, 1, 16, 16))[["temperature"]]
    january = both.isel(time=slice(2 * DAY))
    store = folder / "archive.zarr"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        codec = MoECCodec(ratio=10, effort="fast")
        moec_zarr.convert(january, store, codec, chunks={"time": DAY}, client=client)

        # The codec is that of the store. Existing steps are recognised by their times, so the source may hold
        # both months or only the new one.
        archive = moec_zarr.convert(both, store, append="time", client=client)
    print(archive.temperature)
    print(moec_zarr.compare(both.temperature, archive.temperature))

    # Is it complete, and as close to its source as its records say?
    print(moec_zarr.verify(store, both))
    plot_comparison(both.temperature, archive.temperature, folder / "temperature.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "append_month"))
