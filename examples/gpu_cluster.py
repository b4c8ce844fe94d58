"""Convert on a cluster whose workers have graphics cards: ``python examples/gpu_cluster.py [FOLDER]``.

On each machine, one worker process for each card:

    dask scheduler
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1 --resources "GPU=1"
    CUDA_VISIBLE_DEVICES=1 dask worker tcp://HOST:8786 --nthreads 1 --resources "GPU=1"
    moec-zarr convert SRC DST --ratio 1000 --scheduler tcp://HOST:8786 --device cuda

On one machine ``pip install dask-cuda`` and ``--device cuda`` are enough. Here, where there is no card,
a worker on the CPU stands in.
"""

import sys
from pathlib import Path

import torch
from distributed import Client, LocalCluster

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate


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


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gpu_cluster"))
