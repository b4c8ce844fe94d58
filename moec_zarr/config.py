"""Run-time settings, which may differ between two machines that read the same store.

They are set in ``moec_zarr.config`` (donfig, as in zarr and dask), in the environment
(``MOEC_ZARR_DEVICE=cuda``) or in a ``moec_zarr.yaml`` in donfig's search path. None of them changes
what a stream means, so none is written to metadata.

A key that is not listed here is refused by ``config.set``. In the environment or a file it has no effect, and
the logger ``moec_zarr.config`` says so once.

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
``cache``    256 MiB     bytes of parsed streams that are kept for further reads; 0 keeps none
``largest``  1 GiB       bytes of a chunk that a stream may declare where its reader does not know
                         the shape: through numcodecs, hence zarr format 2, and in ``inspect``
``budget``   ``"fail"``  what becomes of a chunk that cannot be as small as its ratio asks: a `BudgetError`
                         (``"fail"``), or a stream at the smallest ratio that it reaches (``"keep"``)
``compiled`` ``True``    whether numba, where it is installed, decodes: faster once it is compiled and cached
``refit``    ``"warn"``  what an encoder does where it notices that it compresses values which a lossy stream
                         decoded to, as a write of a part of a chunk does: ``"warn"``, ``"raise"``, or
                         ``"allow"``; `moec_zarr.codec.refit` says what is noticed
``progress`` ``"auto"``  progress of fits: ``"auto"`` (only on a terminal), ``True``, ``False``
============ =========== ==================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from donfig import Config
from donfig.config_obj import ConfigSet

from moec_zarr.errors import MoECError

__all__ = ["config"]

_log = logging.getLogger(__name__)
# What donfig reads from the environment by itself: MOEC_ZARR_CONFIG and the like.
_OF_DONFIG = ("config", "root_config", "internal_inherit_config")


class _KnownKeys(Config):  # type: ignore[misc]  # donfig has no types
    """A donfig configuration of the keys in its defaults, and no others."""

    def __init__(self, name: str, defaults: list[Mapping[str, Any]]) -> None:
        self._told: set[object] = set()
        super().__init__(name, defaults=defaults)

    def set(self, arg: Mapping[str, Any] | None = None, **kwargs: Any) -> ConfigSet:
        """Set values, for good or as a context manager; see `donfig.Config.set`.

        Raises
        ------
        MoECError
            If there is no such key.
        """
        for key in (*(arg or ()), *kwargs):
            if not self._knows(key):
                raise MoECError(f"{self._unknown(key)}; set one of those")
        return super().set(arg, **kwargs)

    def refresh(self, **kwargs: Any) -> None:
        """Read files and the environment again; a key that has no effect is logged the first time."""
        try:
            super().refresh(**kwargs)
        except TypeError as error:  # a key within one that has a value, such as MOEC_ZARR_CACHE__X
            _log.warning(
                "files and the environment are not read: no key of %s has others in it (%s)", self.name, error
            )
            super().refresh(paths=[], env={})
        for key in self.config:
            if key not in _OF_DONFIG and not self._knows(key) and key not in self._told:
                self._told.add(key)
                variable = f"{self.env_prefix}{str(key).upper()}"
                _log.warning(
                    "%s; %s or a yaml file sets it, which has no effect: mend or remove it there",
                    self._unknown(key),
                    variable,
                )

    @property
    def _keys(self) -> list[str]:
        return list(dict.fromkeys(key for each in self.defaults for key in each))

    def _knows(self, key: object) -> bool:
        return str(key).replace("-", "_") in self._keys

    def _unknown(self, key: object) -> str:
        near = get_close_matches(str(key), self._keys, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        return f"{self.name}.config has no key {key!r}{guess} It has {', '.join(map(repr, self._keys))}"


config = _KnownKeys(
    "moec_zarr",
    defaults=[
        {
            "device": "cpu",
            "group": "auto",
            "decoder": "auto",
            "threads": 1,
            "batch": None,
            "cache": 1 << 28,
            "largest": 1 << 30,
            "budget": "fail",
            "compiled": True,
            "refit": "warn",
            "progress": "auto",
        }
    ],
)
