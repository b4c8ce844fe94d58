"""Append a new month to a store: ``python examples/append_month.py [FOLDER]``.

What is there is not touched, as long as what is new begins at the boundary of a chunk. So the chunks along
time should divide every step in which the store is going to grow: days divide all months, weeks do not.
"""

import sys
from pathlib import Path

import xarray as xr
from distributed import Client, LocalCluster

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate

DAY = 4  # steps of a day, here


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    both = simulate((3 * DAY, 1, 16, 16))[["temperature"]]
    january, february = both.isel(time=slice(2 * DAY)), both.isel(time=slice(2 * DAY, None))
    store = folder / "archive.zarr"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        codec = MoECCodec(ratio=10, effort="fast")
        moec_zarr.convert(january, store, codec, chunks={"time": DAY}, client=client)

        # xarray takes the codec from the store; an encoding of the new data would be refused. Each of its
        # dask chunks is one task, and must hold whole chunks of the store, which xarray checks.
        february.drop_encoding().chunk(time=DAY).to_zarr(store, append_dim="time")

    # The figures in the attributes are those of the conversion; those of the new part are here.
    with xr.open_zarr(store) as archive:
        print(archive.temperature)
        print(moec_zarr.compare(february.temperature, archive.temperature[2 * DAY :]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "append_month"))
