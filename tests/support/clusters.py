"""Dask clusters of this process, so that tests can get at what workers do."""

from __future__ import annotations

from typing import Any

from distributed import LocalCluster


def cluster_here(workers: int, **options: Any) -> LocalCluster:
    """Workers of one thread each, within this process."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        silence_logs=50,
        **options,
    )
