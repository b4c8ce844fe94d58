"""Append a new month to a store: ``python examples/append_month.py [FOLDER]``.

What is there is not touched, as long as what is new begins at the boundary of a chunk. So the chunks along
time should divide every step in which the store is going to grow: days divide all months, weeks do not. The
command line does the same:

    moec-zarr convert 'FOLDER/*.nc' FOLDER/archive.zarr --append time
"""

import sys
from pathlib import Path

from distributed import Client, LocalCluster

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate

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

        # The codec is the store's. What the store has is recognised by its times, so that the source may
        # hold both months or the new one alone.
        archive = moec_zarr.convert(both, store, append="time", client=client)
    print(archive.temperature)
    print(moec_zarr.compare(both.temperature, archive.temperature))

    # Is it whole, and as close to its source as its records say?
    print(moec_zarr.verify(store, both))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "append_month"))
