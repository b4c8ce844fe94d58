"""The dask cluster that a conversion runs on."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moec_zarr.config import config
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connect", "offering", "resources_for"]

_ANSWER = 10  # seconds that a scheduler has to answer
_PATIENCE = 60  # seconds that it has to show its first worker


@contextmanager
def connect(client: Client | str | None, workers: int | None) -> Iterator[Client]:
    """Return a client: the one given, one for the scheduler at an address, or one for a cluster made here.

    A cluster made here has one process a graphics card where ``moec_zarr.config`` asks for ``"cuda"`` and
    dask-cuda is installed, else `workers` processes, by default one a core. It ends with the context, as
    does a client that was made here.

    Raises
    ------
    MoECError
        If dask.distributed is not installed, or no scheduler or no worker can be reached.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise MoECError(
            "this needs dask.distributed, which the extra moec-zarr[all] brings; install it"
        ) from error
    if isinstance(client, Client):
        yield client
    elif client is not None:
        try:
            remote = Client(client, timeout=_ANSWER, set_as_default=False)
        except (OSError, ValueError) as error:
            raise MoECError(f"no scheduler can be reached at {client!r}: {error}") from error
        with remote:
            yield remote
    else:
        # dask makes its workers return memory to the system at every turn. A fit allocates at every step, and
        # would take nearly twice as long.
        trimming = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
        cuda = config.get("device") == "cuda" and importlib.util.find_spec("dask_cuda") is not None
        options: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": logging.ERROR}
        with dask.config.set(trimming):
            if cuda:
                from dask_cuda import LocalCUDACluster

                cluster: LocalCluster = LocalCUDACluster(n_workers=workers, **options)
            else:
                n_workers = workers or dask.system.CPU_COUNT
                cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, **options)
        with cluster, Client(cluster, set_as_default=False) as local:
            yield local


def offering(client: Client, resources: Mapping[str, float]) -> dict[str, Any]:
    """Return the workers, by address, that offer all of `resources`."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: worker
        for address, worker in workers.items()
        if all(worker.get("resources", {}).get(name, 0) >= amount for name, amount in resources.items())
    }


def resources_for(client: Client, asked: Mapping[str, float] | None, networks: bool) -> dict[str, float]:
    """Return the resources that each task takes, once it is certain that workers can do the work.

    Those asked for, else one GPU where the device is ``"cuda"`` and a worker offers ``GPU``.

    Raises
    ------
    MoECError
        If there is no worker, none offers what was asked for, or one lacks a package or the device.
    """
    if not client.scheduler_info(n_workers=-1)["workers"]:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise MoECError(
                f"the scheduler has no worker, and none came within {_PATIENCE} s; start one"
            ) from error
    resources = dict(asked or {})
    if asked is None and config.get("device") == "cuda" and offering(client, {"GPU": 1}):
        resources = {"GPU": 1}
    suited = offering(client, resources)
    if not suited:
        # Raised now: dask would keep such tasks waiting for ever without a word.
        every = client.scheduler_info(n_workers=-1)["workers"].values()
        offered = {name: amount for worker in every for name, amount in worker.get("resources", {}).items()}
        raise MoECError(
            f"no worker offers {resources}; they offer {offered or 'no resources'}. Start workers with, for "
            'example, dask worker --nthreads 1 --resources "GPU=1", or leave resources= out'
        )
    missing = client.run(_probe, config.get("device"), networks, workers=list(suited), on_error="return")
    for address, lack in missing.items():
        # It could not even be asked; of its error, dask passes on the text alone.
        if isinstance(lack, Exception) and "No module named 'moec_zarr" in str(lack):
            lack = (
                "moec_zarr not found, which it needs in the version that runs here; install moec-zarr[all] "
                "there and start the worker again"
            )
        if lack:
            raise MoECError(f"the worker {address} cannot do the work: {lack}")
    return resources


def _probe(device: str, networks: bool) -> str:
    """Return what a worker lacks; empty where it is nothing."""
    needed = ["numba", "xarray", "dask"] + ["torch"] * (networks or device == "cuda")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not found, which the extra moec-zarr[all] brings; install it"
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "torch finds no GPU there; ask for the device cpu, or for workers that have one"
    return ""
