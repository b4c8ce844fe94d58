"""From a simulation to a store and back: ``python -m moec_zarr.demo [--out DIR]``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.xarray_encoding import encoding
from moec_zarr.demo.simulate import simulate
from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.metrics import compare
from moec_zarr.report.comparison.plot import plot_comparison

__all__ = ["demo", "main"]


def demo(out: Path, *, shape: tuple[int, int, int, int] = (16, 8, 64, 64), ratio: float = 100) -> None:
    """Simulate, store, read back, compare: prints a table and saves a picture of each variable.

    Parameters
    ----------
    out : Path
        Folder for the store, ``simulation.zarr``, and the pictures; made where it is absent. A store of
        that name is replaced.
    shape : tuple of int
        Numbers of times, levels, rows and columns of the simulation.
    ratio : float
        How many times smaller the variables become.

    Raises
    ------
    MoECError
        If numba, xarray, matplotlib or scikit-image is not installed, or `shape` is too small for `ratio`.
    """
    # Asked for now rather than after the fits.
    needed = ("numba", "xarray", "matplotlib", "skimage")
    if absent := [name for name in needed if find_spec(name) is None]:
        raise MoECError(
            f"the demo needs {', '.join(absent)}, which the extra moec-zarr[all] brings; install it"
        )
    import xarray as xr

    out.mkdir(parents=True, exist_ok=True)
    path = out / "simulation.zarr"
    codec = MoECCodec(ratio=ratio, effort="fast")

    print(f"simulating {' x '.join(map(str, shape))} voxels (time, level, y, x) ...", flush=True)
    ds = simulate(shape)
    # The coordinates first, so that each variable can be written and timed by itself.
    ds.coords.to_dataset().to_zarr(path, mode="w", consolidated=False)

    row = "{:<12} {:>10} {:>10} {:>8} {:>9} {:>12} {:>7} {:>9} {:>9}"
    print(
        row.format(
            "variable", "MB", "kB stored", "ratio", "PSNR dB", "max error", "units", "encode s", "decode s"
        )
    )
    for name, original in ds.data_vars.items():
        entry = encoding(ds, codec, variables=[name])
        start = time.perf_counter()
        ds[[name]].drop_vars(ds.coords).to_zarr(path, mode="a", encoding=entry, consolidated=False)
        encoded = time.perf_counter() - start

        start = time.perf_counter()
        decoded = xr.open_zarr(path, chunks=None, consolidated=False)[name].load()
        seconds = time.perf_counter() - start

        stored = sum(chunk.stat().st_size for chunk in (path / str(name) / "c").rglob("*") if chunk.is_file())
        result = compare(original, decoded)
        measured = original.nbytes / stored
        figures = (
            f"{original.nbytes / 1e6:.2f}",
            f"{stored / 1e3:.2f}",
            f"{measured:.1f}",
            f"{result.psnr:.2f}",
        )
        times = f"{encoded:.1f}", f"{seconds:.2f}"
        print(row.format(name, *figures, f"{result.max_error:.3g}", original.units, *times), flush=True)
        plot_comparison(original, decoded, out / f"{name}.png", ratio=measured, psnr=result.psnr)
    print(f"pictures and store in {out}/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo as a command."""
    parser = argparse.ArgumentParser(prog="python -m moec_zarr.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for store and pictures")
    demo(parser.parse_args(arguments).out)
