"""Dictionaries of a conversion, trained on workers before anything is written: a task for each variable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.training import Trained, parts_to_train, train_on
from moec_zarr.archive.lock import Lock
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.config import config
from moec_zarr.conversion.work.cluster import offering
from moec_zarr.conversion.work.dispatch import error_of
from moec_zarr.conversion.work.worker import task_lock

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client, Future

__all__ = ["train_dictionaries"]

_log = logging.getLogger(__name__)
_TICK = 1.0  # seconds between two looks at the lock
_RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What a worker is given.

    Attributes
    ----------
    variable : str
        Name of the variable.
    codec : MoECCodec
        Its codec, without a dictionary.
    parts : tuple of xarray.Variable
        Chunks of it, not yet read, in the order in which they are taken.
    count : int
        Number of them to train on.
    device : str
        Where to fit.
    threads : int
        Torch threads of a fit.
    """

    variable: str
    codec: MoECCodec
    parts: tuple[xr.Variable, ...]
    count: int
    device: str
    threads: int


def train_dictionaries(
    client: Client,
    resources: Mapping[str, float],
    planned: Plan,
    ds: xr.Dataset,
    lock: Lock,
    say: Callable[[str], None],
) -> Plan:
    """Train the dictionaries that a plan asks for, and return it with them.

    Where none can be trained, say for a file that cannot be read, the variable is converted without: its
    tasks tell what is wrong.

    Raises
    ------
    MoECError
        If the cluster lost a task, or the lock was broken.
    """
    from distributed import wait

    left = [each for each in planned.compressed if each.training]
    count = len(left)
    futures: dict[Future[Any], str] = {}
    codecs: dict[str, MoECCodec] = {}
    try:
        while left or futures:
            # A source that lives in memory travels: as much of it as workers take at a time.
            slots = max(1, sum(worker["nthreads"] for worker in offering(client, resources).values()))
            while left and len(futures) < slots:
                each = left.pop(0)
                futures[_submit(client, _make_training(each, ds), resources)] = each.name
            say(f"training dictionaries, {count - len(left) - len(futures)} of {count} done")
            lock.check()
            try:
                with client.as_current():
                    done = wait(list(futures), timeout=_TICK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in done:
                name = futures.pop(future)
                if future.status == "finished":
                    trained: Trained[MoECCodec] = future.result()
                    codecs[name] = trained.codec
                    _log.info("variable %r: %s", name, trained.told)
                else:
                    _log.warning(
                        "variable %r is converted without a dictionary, which could not be trained: %r",
                        name, error_of(future),
                    )  # fmt: skip
    finally:
        if futures:
            client.cancel(list(futures), force=True)
    return planned.with_codecs(codecs)


def _make_training(each: PlannedVariable, ds: xr.Dataset) -> _Training:
    assert each.codec is not None
    assert each.chunks is not None
    return _Training(
        variable=each.name,
        codec=each.codec,
        parts=parts_to_train(ds.variables[each.name], each.chunks, each.encoding, each.training),
        count=each.training,
        device=config.get("device"),
        threads=config.get("threads"),
    )


def _submit(client: Client, training: _Training, resources: Mapping[str, float]) -> Future[Any]:
    from dask import config as dask_config

    # It carries its chunks of a source that lives in memory; dask's warning is for larger things.
    with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        return client.submit(
            _train, training, key=f"moec-dictionary-{training.variable}-{time.time_ns()}", pure=False,
            resources=dict(resources) or None, retries=_RETRIES,
        )  # fmt: skip


def _train(training: _Training) -> Trained[MoECCodec]:
    """Train a dictionary, on a worker."""
    with task_lock, config.set(device=training.device, threads=training.threads, group=1):
        return train_on(training.codec, training.parts, training.variable, training.count)
