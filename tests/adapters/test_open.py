"""`moec_zarr.open`: what it creates, what it opens, what it refuses."""

import pytest
import zarr

import moec_zarr
from moec_zarr import MoECCodec, MoECError, UnsupportedArrayError
from tests.adapters.layouts import CHUNKS, CODEC, SHAPE
from tests.support.fields import assert_near

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


@FORMATS
@pytest.mark.parametrize(
    ("options", "message"),
    [({"shape": (2,) * 6, "dtype": "f4"}, "6 axes"), ({"shape": SHAPE, "dtype": "c8"}, "complex64")],
    ids=["rank", "dtype"],
)
def test_unsupported_arrays_are_refused(zarr_format, options, message):
    with pytest.raises(UnsupportedArrayError, match=message):
        moec_zarr.open({}, mode="w", compressor=CODEC, zarr_format=zarr_format, **options)


def test_chunks_and_format_by_default():
    array = moec_zarr.open({}, mode="w", shape=(100, 721, 1440), dtype="f4", compressor=MoECCodec(ratio=1000))
    assert array.chunks == (8, 721, 1440)
    assert array.metadata.zarr_format == 3
    with zarr.config.set({"default_zarr_format": 2}):
        array = moec_zarr.open({}, mode="a", shape=10, dtype="f4", compressor=CODEC)
    assert array.metadata.zarr_format == 2
    sharded = moec_zarr.open(
        {}, mode="w", shape=(600, 721, 1440), dtype="f4", compressor=CODEC, shards=(30, 721, 1440)
    )
    assert sharded.shards == (30, 721, 1440)
    assert sharded.chunks == (30, 103, 1440)


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_existing_array(stored, mode):
    path, full = stored
    assert_near(moec_zarr.open(path, mode=mode)[3], full[3])
    same = moec_zarr.open(path, mode=mode, shape=SHAPE, chunks=CHUNKS, dtype="f4", compressor=CODEC)
    assert same.read_only == (mode == "r")
    for other in (
        {"compressor": MoECCodec(ratio=1000)},
        {"shape": (20, 24, 41)},
        {"dtype": "f8"},
        {"chunks": (1, 2, 3)},
    ):
        with pytest.raises(MoECError, match=next(iter(other))):
            moec_zarr.open(path, mode=mode, **other)


def test_creates_only_where_the_mode_allows(tmp_path):
    path = tmp_path / "a.zarr"
    new = {"shape": CHUNKS, "dtype": "f4", "compressor": CODEC}
    for mode in ("r", "r+"):
        with pytest.raises(FileNotFoundError):
            moec_zarr.open(path, mode=mode, **new)
    for mode in ("a", "w", "w-"):
        with pytest.raises(MoECError, match="give shape="):
            moec_zarr.open(path, mode=mode, shape=CHUNKS, dtype="f4")
    assert not path.exists()
    moec_zarr.open(path, mode="w-", **new)
    with pytest.raises(zarr.errors.ContainsArrayError):
        moec_zarr.open(path, mode="w-", **new)
    assert moec_zarr.open(path, mode="w", **{**new, "shape": (3, 4)}).shape == (3, 4)
    moec_zarr.open(tmp_path / "g.zarr", mode="a", path="x/y", **new)
    assert zarr.open_group(tmp_path / "g.zarr", mode="r")["x/y"].shape == CHUNKS


def test_other_codecs_and_groups_are_refused(tmp_path):
    with pytest.raises(MoECError, match=r"must be a MoECCodec.*MoECSerializer"):
        moec_zarr.open({}, mode="w", shape=CHUNKS, dtype="f4", compressor=CODEC.serializer())
    zarr.create_group(tmp_path)
    with pytest.raises(MoECError, match="group"):
        moec_zarr.open(tmp_path, mode="r")
    lossless = tmp_path / "lossless"
    zarr.create_array(lossless, shape=CHUNKS, dtype="f4")
    with pytest.raises(MoECError, match="compressor None"):
        moec_zarr.open(lossless, mode="r", compressor=CODEC)
