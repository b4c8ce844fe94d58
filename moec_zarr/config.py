"""Run-time settings, which may differ between two machines that read the same store.

They are set in ``moec_zarr.config`` (donfig, as in zarr and dask), in the environment
(``MOEC_ZARR_DEVICE=cuda``) or in a ``moec_zarr.yaml`` in donfig's search path. None of them changes
what a stream means, so none is written to metadata.

============ =========== ==================================================================
key          default     meaning
============ =========== ==================================================================
``device``   ``"cpu"``   where a fit runs, and where torch decodes: ``"cpu"`` or ``"cuda"``
``group``    ``"auto"``  chunks whose networks are trained together; ``"auto"`` is 1 on a CPU, and on a GPU
                         up to 128 of them, as memory allows
``decoder``  ``"auto"``  what evaluates a model on reading: ``"numpy"``, ``"torch"`` on `device`, or
                         ``"auto"``: torch where that is ``"cuda"``, NumPy elsewhere
``threads``  ``1``       torch threads of one fit; as many fits run at a time as there are cores
``batch``    ``None``    voxels in one evaluation tile; ``None`` for what suits the cache, or a GPU's memory
``cache``    64 MiB      bytes of parsed streams that are kept for further reads; 0 keeps none
``largest``  1 GiB       bytes of a chunk that a stream may declare where its reader does not know
                         the shape: through numcodecs, hence zarr format 2, and in ``inspect``
``compiled`` ``True``    whether numba, where it is installed, decodes: faster once it is compiled and cached
``progress`` ``"auto"``  progress of fits: ``"auto"`` (only on a terminal), ``True``, ``False``
============ =========== ==================================================================
"""

from __future__ import annotations

from donfig import Config

__all__ = ["config"]

config = Config(
    "moec_zarr",
    defaults=[
        {
            "device": "cpu",
            "group": "auto",
            "decoder": "auto",
            "threads": 1,
            "batch": None,
            "cache": 1 << 26,
            "largest": 1 << 30,
            "compiled": True,
            "progress": "auto",
        }
    ],
)
