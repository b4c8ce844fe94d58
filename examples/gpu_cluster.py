# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""Convert on a cluster whose workers have GPUs: ``python examples/gpu_cluster.py [FOLDER]``.

Start one worker process for each GPU:

    dask scheduler
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1 --resources "GPU=1"
    CUDA_VISIBLE_DEVICES=1 dask worker tcp://HOST:8786 --nthreads 1 --resources "GPU=1"
    moec-zarr convert SRC DST --ratio 1000 --scheduler tcp://HOST:8786 --device cuda

On one machine, ``pip install dask-cuda`` and ``--device cuda`` are enough. Without a GPU this script uses
a worker on the CPU. Writes ``temperature.png``.
"""

import sys
from pathlib import Path

import torch
import xarray as xr
from distributed import Client, LocalCluster

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate
from moec_zarr.report.comparison.plot import plot_comparison


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.zarr"
    simulate((8, 1, 16, 16))[["temperature"]].to_zarr(source, mode="w", consolidated=False)

    cards = torch.cuda.device_count()
    moec_zarr.config.set(device="cuda" if cards else "cpu")
    with (
        LocalCluster(
            n_workers=cards or 1, threads_per_worker=1, resources={"GPU": 1}, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        # Refused at once if no worker offered a GPU.
        archive = moec_zarr.convert(
            source,
            folder / "archive.zarr",
            MoECCodec(ratio=10, effort="fast"),
            chunks={"time": 4},
            client=client,
            resources={"GPU": 1},
        )
    print(archive.temperature.attrs)
    original = xr.open_zarr(source, consolidated=False).temperature
    plot_comparison(original, archive.temperature, folder / "temperature.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gpu_cluster"))
