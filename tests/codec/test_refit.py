"""Values that a lossy stream decoded to are noticed where they are compressed again, and only there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import moec_zarr
from moec_zarr import MoECCodec, MoECError, config, inspect
from moec_zarr.archive.inspection import inspect_streams
from moec_zarr.codec import refit
from tests.conformance import reference_decoder
from tests.support.fields import smooth

SHAPE = (4, 24, 24)
CODEC = MoECCodec(max_error=0.02, effort="fast")
LAYOUTS = {"v2": {"zarr_format": 2}, "v3": {}, "shards": {"shards": (8, 24, 48)}}


@pytest.fixture(autouse=True)
def nothing_before() -> Iterator[None]:
    """As in a new process."""
    refit._kept.clear()
    yield
    refit._kept.clear()


def field(shape: tuple[int, ...] = SHAPE, dtype: str = "f4", seed: int = 0) -> NDArray[Any]:
    walk = np.cumsum(np.random.default_rng(seed).normal(size=shape), 1)
    return (walk * (1 if np.dtype(dtype).kind == "f" else 30)).astype(dtype)


def is_noticed(codec: MoECCodec, array: NDArray[Any]) -> bool:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stream = codec.encode(array)
    assert inspect(stream).refit == bool(reference_decoder.Reader(stream[8:9]).number(1) & 64)
    assert {
        "compressed again" in str(each.message) or "decoded to" in str(each.message) for each in told
    } in (
        {True},
        set(),
    )
    assert inspect(stream).refit == bool(told)
    return bool(told)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_written_one_by_one_into_a_chunk(tmp_path, layout):
    data = field((8, 24, 48))
    options = {"shape": data.shape, "chunks": SHAPE, "dtype": "f4", "fill_value": np.nan} | LAYOUTS[layout]
    moec_zarr.open(tmp_path / "a.zarr", mode="w", compressor=CODEC, **options)
    for step in range(8):
        refit._kept.clear()
        array = zarr.open(tmp_path / "a.zarr", mode="r+")
        if step % 4:
            with pytest.warns(UserWarning, match="write of a part of a chunk"):
                array[step] = data[step]
        else:
            array[step] = data[step]
    errors = np.abs(np.asarray(array[:]) - data).max((1, 2))
    assert errors.max() > 0.02  # what the warning is about
    infos = [info for _, info in inspect_streams(array)]
    assert [(info.refit, info.bound) for info in infos] == [(True, None)] * 4
    array[:] = data
    assert [(info.refit, info.bound) for _, info in inspect_streams(array)] == [(False, 0.02)] * 4


def test_xarray_appends_a_step_at_a_time(tmp_path):
    xr = pytest.importorskip("xarray")
    ds = xr.Dataset({"a": (("time", "y", "x"), field())})
    encoding = {"a": {"serializer": CODEC.serializer(), "compressors": None, "chunks": SHAPE}}
    options: dict[str, Any] = {"consolidated": False}
    ds.isel(time=[0]).to_zarr(tmp_path / "a.zarr", encoding=encoding, **options)
    for step in range(1, 4):
        with pytest.warns(UserWarning, match="lose accuracy again"):
            ds.isel(time=[step]).to_zarr(tmp_path / "a.zarr", append_dim="time", **options)


def test_several_arrays_and_threads_side_by_side(tmp_path):
    data = [field((4, 24, 96), seed=seed) for seed in range(3)]
    arrays = [
        moec_zarr.open(
            tmp_path / f"{i}.zarr", mode="w", shape=each.shape, chunks=SHAPE, dtype="f4", compressor=CODEC
        )
        for i, each in enumerate(data)
    ]
    for array, each in zip(arrays, data, strict=True):
        array[:] = each
    with config.set(refit="allow"), ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: arrays[i].__setitem__((slice(1), slice(None), slice(None)), 0), range(3)))
    for array in arrays:
        assert all(info.refit for _, info in inspect_streams(array))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1", ">f4"])
def test_parts_that_are_kept(dtype):
    codec = MoECCodec(psnr=35, effort="fast")
    array = field((4, 40, 60), dtype)
    decoded, other = codec.decode(codec.encode(array)), field((4, 40, 60), dtype, seed=5)
    assert is_noticed(codec, decoded)
    for kept in (np.s_[:1], np.s_[:, 13:], np.s_[..., -4:], np.s_[2:, 20:, 30:]):
        changed = other.copy()
        changed[kept] = decoded[kept]
        assert is_noticed(codec, changed) == (kept != np.s_[2:, 20:, 30:])
    scattered = np.where(np.random.default_rng(0).random(array.shape) < 0.5, other, decoded)
    assert is_noticed(codec, scattered) == (np.dtype(dtype).kind == "f")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "u1"])
@pytest.mark.parametrize("psnr", [30, 60, 90])
def test_an_original_that_is_written_again_is_none(dtype, psnr):
    """Whole, though some of it, or nearly all, decoded to what it was."""
    codec = MoECCodec(psnr=psnr, effort="fast")
    array = field((4, 40, 60), dtype)
    array[:, :10] = 3  # a plateau, as of the sea in a map of heights
    array[:, 10:15] = array.min()
    codec.decode(codec.encode(array))
    assert not is_noticed(codec, array)
    assert not is_noticed(codec, field((4, 40, 60), dtype, seed=3))


def test_what_loses_nothing_is_none():
    for array in (np.zeros(SHAPE, "f4"), np.full(SHAPE, np.nan), field(dtype="i2") // 40):
        codec = MoECCodec(max_error=0, effort="fast")
        decoded = codec.decode(codec.encode(array))
        decoded[:2] = 0
        assert not is_noticed(MoECCodec(psnr=30, effort="fast"), decoded)


def test_a_lossless_stream_of_lost_values_says_so_without_a_warning():
    exact = MoECCodec(max_error=0)
    decoded = CODEC.decode(CODEC.encode(field()))
    info = inspect(exact.encode(decoded))
    assert (info.refit, info.bound, info.kind) == (True, None, "lossless")
    refit._kept.clear()
    again = exact.decode(exact.encode(decoded))
    refit._kept.clear()
    assert not inspect(exact.encode(again)).refit  # another process decoded it: nothing says so


def test_raise_allow_and_nonsense():
    decoded = CODEC.decode(CODEC.encode(field()))
    with config.set(refit="raise"), pytest.raises(MoECError, match=r"\(4, 24, 24\).*whole shards.*--append"):
        CODEC.encode(decoded)
    with config.set(refit="allow"):
        assert inspect(CODEC.encode(decoded)).refit
    with config.set(refit="perhaps"), pytest.raises(MoECError, match="'warn', 'raise' or 'allow'"):
        CODEC.encode(decoded)


def test_little_is_remembered():
    for seed in range(3):
        CODEC.decode(CODEC.encode(field((6, 40, 40), seed=seed)))
    assert len(refit._kept) == 3
    assert all(each.values.nbytes <= 2**14 for each in refit._kept.values())


def test_no_bound_is_shown_where_some_streams_are_refits():
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    from moec_zarr.cli.tables import streams_row
    from moec_zarr.report.page.variable import _find_bound

    stream = CODEC.encode(field())
    decoded = CODEC.decode(stream)
    with config.set(refit="allow"):
        infos = [inspect(each) for each in (stream, CODEC.encode(decoded))]
        exact = inspect(MoECCodec(max_error=0).encode(decoded))
    assert _find_bound(infos[:1]) == 0.02
    assert streams_row(infos[:1])[5] == "0.02"
    assert _find_bound(infos) is _find_bound([exact]) is None
    assert streams_row(infos)[5] == "refitted"  # in the column of bounds


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_an_original_that_is_nearly_exact_is_no_refit(ratio):
    """Large values come back exactly where an error is smaller than their next value is away."""
    array = smooth((16, 16, 24))
    codec = MoECCodec(ratio=ratio, effort="fast")
    decoded = codec.decode(codec.encode(array))
    assert 0 < np.count_nonzero(decoded != array) < array.size
    codec.encode(array)  # a warning is an error
