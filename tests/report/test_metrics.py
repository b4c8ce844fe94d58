"""`compare`: its figures, what counts as masked, and how little it reads and holds."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from moec_zarr.errors import MoECError, UnsupportedArrayError
from moec_zarr.report.comparison import metrics
from moec_zarr.report.comparison.metrics import Comparison, compare
from tests.report.pairs import pair


def ssim_by_windows(a: NDArray[Any], b: NDArray[Any], span: float) -> list[float]:
    """SSIM of each 7 x 7 window without masked voxels, written out from Wang et al. (2004)."""
    values = []
    for i in range(a.shape[0] - 6):
        for j in range(a.shape[1] - 6):
            x, y = (v[i : i + 7, j : j + 7].astype("f8").ravel() for v in (a, b))
            if np.isfinite(x).all() and np.isfinite(y).all():
                (xx, xy), (_, yy) = np.cov(x, y)
                c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
                luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
                values.append(luminance * (2 * xy + c2) / (xx + yy + c2))
    return values


def test_figures_of_a_worked_example() -> None:
    a = np.array([0, 10, 20, 100], "u1")
    b = np.array([0, 13, 16, 100], "u1")
    rmse = math.sqrt((9 + 16) / 4)
    result = compare(a, b)
    assert result == Comparison(
        psnr=pytest.approx(20 * math.log10(100 / rmse)),
        psnr_dtype=pytest.approx(20 * math.log10(255 / rmse)),
        nrmse=pytest.approx(rmse / 100),
        ssim=None,
        max_error=4.0,
        n=4,
        n_valid=4,
        n_special_mismatch=0,
    )


def test_agrees_with_scikit_image_and_numpy() -> None:
    a, b = pair((40, 50))
    span = float(a.max() - a.min())
    result = compare(a, b)
    assert result.psnr == pytest.approx(
        peak_signal_noise_ratio(a.astype("f8"), b.astype("f8"), data_range=span)
    )
    assert result.ssim == pytest.approx(
        structural_similarity(a.astype("f8"), b.astype("f8"), data_range=span)
    )
    assert result.max_error == np.abs(a.astype("f8") - b.astype("f8")).max()
    assert result.psnr_dtype is None


def test_ssim_is_the_mean_over_slices_of_the_last_two_axes_longer_than_one() -> None:
    a, b = pair((3, 2, 12, 1, 15))
    span = float(a.max() - a.min())
    slices = [(a[t, k, :, 0], b[t, k, :, 0]) for t in range(3) for k in range(2)]
    expected = np.mean([structural_similarity(*(v.astype("f8") for v in s), data_range=span) for s in slices])
    assert compare(a, b).ssim == pytest.approx(expected)


def test_ssim_leaves_out_windows_with_masked_voxels() -> None:
    a, b = pair((16, 18))
    a[3, 4] = b[3, 4] = np.nan
    b[12, 15] = np.inf
    span = float(np.nanmax(a) - np.nanmin(a))
    assert compare(a, b).ssim == pytest.approx(np.mean(ssim_by_windows(a, b, span)))


@pytest.mark.parametrize("shape", [(500,), (6, 50), (4, 3, 6), (1, 100, 1), ()])
def test_no_ssim_without_windows(shape: tuple[int, ...]) -> None:
    a, b = np.ones(shape, "f4"), np.zeros(shape, "f4")
    if a.size > 1:
        a.flat[0] = 2
    assert compare(a, b).ssim is None


def test_equal_arrays() -> None:
    a, _ = pair((20, 20))
    a[0, 0], a[1, 1], a[2, 2] = np.nan, np.inf, -np.inf
    result = compare(a, a.copy())
    assert (result.psnr, result.nrmse, result.max_error) == (math.inf, 0.0, 0.0)
    assert result.ssim == pytest.approx(1)
    assert (result.n, result.n_valid, result.n_special_mismatch) == (400, 397, 0)


def test_a_constant_original() -> None:
    a = np.full((9, 9), 5, "i2")
    assert compare(a, a).psnr == math.inf
    off = compare(a, a + np.int16(1))
    assert (off.psnr, off.nrmse, off.max_error) == (-math.inf, math.inf, 1.0)
    assert off.psnr_dtype == pytest.approx(20 * math.log10(32767))


def test_masked_voxels_do_not_enter_the_errors() -> None:
    a = np.array([0.0, 1.0, np.nan, np.inf, -np.inf, np.nan])
    b = np.array([0.0, 0.5, np.nan, -np.inf, -np.inf, 7.0])
    result = compare(a, b)
    assert (result.n_valid, result.n_special_mismatch) == (2, 2)
    assert result.max_error == 0.5
    assert result.psnr == pytest.approx(20 * math.log10(1 / math.sqrt(0.125)))


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_lost_voxel_makes_the_errors_infinite(lost: float) -> None:
    a = np.arange(100.0).reshape(10, 10)
    b = a.copy()
    b[4, 4] = lost
    result = compare(a, b)
    assert (result.psnr, result.nrmse, result.max_error) == (-math.inf, math.inf, math.inf)
    assert result.n_special_mismatch == 1


def test_missing_counts_as_masked() -> None:
    a = np.array([1.0, 2.0, 9.96921e36, 9.96921e36], "f4")
    b = np.array([1.0, 2.0, 9.96921e36, 3.0], "f4")
    result = compare(a, b, missing=9.96921e36)
    assert (result.n_valid, result.n_special_mismatch, result.max_error) == (2, 1, 0.0)
    integers = np.array([-999, 0, 10], "i2")
    assert compare(integers, integers, missing=-999).n_valid == 2
    assert compare(integers, integers, missing=9.96921e36).n_valid == 3


@pytest.mark.parametrize(
    ("dtype", "x", "y", "error"),
    [
        ("i8", -(2**63), 2**63 - 1, 2.0**64),
        ("u8", 2**63 + 1, 2**63, 1.0),
        ("i8", 2**60 + 1, 2**60, 1.0),
        ("i1", -128, 127, 255.0),
        (">u2", 65535, 0, 65535.0),
    ],
)
def test_differences_of_integers_are_exact(dtype: str, x: int, y: int, error: float) -> None:
    a, b = np.array([x, 0], dtype), np.array([y, 0], dtype)
    assert compare(a, b).max_error == compare(b, a).max_error == error


def test_nothing_to_compare() -> None:
    for a in (np.empty((0, 8), "f4"), np.full((8, 8), np.nan)):
        result = compare(a, a)
        assert (result.psnr, result.max_error, result.n_valid) == (math.inf, 0.0, 0)
        assert result.ssim is None


class Counted:
    """An array stored in chunks that counts how often each of its voxels is read."""

    def __init__(self, data: NDArray[Any], chunks: tuple[int, ...]) -> None:
        self.data, self.chunks = data, chunks
        self.shape, self.dtype = data.shape, data.dtype
        self.reads = np.zeros(data.shape, int)
        self.keys: list[tuple[slice, ...]] = []

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        self.reads[key] += 1
        self.keys.append(key)
        return self.data[key]


@pytest.mark.parametrize("shape", [(20, 17, 30), (7, 40, 40)])
def test_reads_whole_chunks_and_the_decoded_array_once(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(*pair(shape))
    monkeypatch.setattr(metrics, "BLOCK", 1500)
    x, y = pair(shape)
    a, b = Counted(x, (5, 5, 5)), Counted(y, (8, 8, 16))
    result = compare(a, b)
    assert np.all(b.reads == 1)
    assert np.all(a.reads == 2)
    for key in b.keys:
        assert all(s.start % c == 0 for s, c in zip(key, b.chunks, strict=True))
    for name in ("psnr", "nrmse", "max_error"):
        assert getattr(result, name) == pytest.approx(getattr(whole, name))
    assert result.ssim == pytest.approx(whole.ssim, abs=0.02)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 2**14)
    a, b = pair((64, 192, 192))
    compare(a[:1], b[:1])  # imports
    tracemalloc.start()
    compare(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 2  # a float64 copy of one array would take twice its bytes


def test_zarr_dask_and_xarray_give_what_numpy_gives(tmp_path: Path) -> None:
    a, b = pair((9, 20, 25))
    expected = compare(a, b)
    stored = zarr.create_array(tmp_path / "b.zarr", data=b, chunks=(3, 20, 25))
    assert compare(a, stored) == expected
    dims = ("t", "y", "x")
    original, decoded = xr.Dataset({"v": (dims, a)}), xr.Dataset({"v": (dims, b)})
    assert compare(original.v, decoded.v.chunk({"t": 4})) == expected
    decoded.to_zarr(tmp_path / "ds.zarr", consolidated=False)
    assert compare(original, xr.open_zarr(tmp_path / "ds.zarr", chunks=None, consolidated=False)) == {
        "v": expected
    }


def test_datasets_by_variable() -> None:
    a, b = pair((8, 9))
    more = {"name": ("y", np.array(list("abcdefgh"))), "when": ("y", np.arange(8).astype("M8[s]"))}
    original = xr.Dataset({"v": (("y", "x"), a), "w": (("y", "x"), b), **more}, {"x": np.arange(9)})
    decoded = original.assign(v=(("y", "x"), b))
    result = compare(original, decoded)
    assert result == {"v": compare(a, b), "w": compare(b, b)}


def test_refuses_what_cannot_be_compared() -> None:
    a = np.zeros((8, 9))
    ds = xr.Dataset({"v": (("y", "x"), a)})
    with pytest.raises(MoECError, match=r"\(8, 9\) and shape \(9, 8\)"):
        compare(a, a.T)
    with pytest.raises(MoECError, match=r"'y', 'x'\) in the original and \('y', 'z'\)"):
        compare(ds.v, ds.v.rename(x="z"))
    with pytest.raises(MoECError, match="Dataset and ndarray"):
        compare(ds, a)
    with pytest.raises(MoECError, match="'v' of the original not found"):
        compare(ds, ds.rename(v="w"))
    for dtype in ("?", "c8", "M8[s]", "U1"):
        with pytest.raises(UnsupportedArrayError, match="expected integers or floats"):
            compare(a.astype(dtype), a.astype(dtype))
