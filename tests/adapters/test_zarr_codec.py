import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from tests.support.fields import assert_near, psnr, smooth

import moec_zarr
from moec_zarr import MoECCodec, MoECError, MoECSerializer, UnsupportedArrayError

FAST = {"ratio": 20, "effort": "fast"}
CODEC = MoECCodec(**FAST)
SHAPE, CHUNKS = (20, 24, 40), (16, 24, 32)  # whole chunks and edge chunks
DATA = smooth(SHAPE)

LAYOUTS = {
    "v2": {"zarr_format": 2, "chunks": CHUNKS},
    "v3": {"zarr_format": 3, "chunks": CHUNKS},
    "sharded": {"zarr_format": 3, "chunks": CHUNKS, "shards": (32, 24, 64)},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def stored(request, tmp_path_factory):
    """An array in each layout, and what all of it decodes to."""
    path = tmp_path_factory.mktemp("stored") / "a.zarr"
    array = moec_zarr.open(
        path, mode="w", shape=SHAPE, dtype="f4", compressor=CODEC, fill_value=-1, **LAYOUTS[request.param]
    )
    before = DATA.copy()
    array[:] = DATA
    np.testing.assert_array_equal(DATA, before)
    return path, array[:]


def test_round_trip(stored):
    _, full = stored
    assert (full.shape, full.dtype) == (SHAPE, DATA.dtype)
    assert psnr(DATA, full) > 25


BASIC = [
    (),
    (3,),
    (3, 5, 7),
    (-1, slice(None), -1),
    (slice(2, 18, 3), slice(None, None, 5), slice(30, 35)),
    (slice(15, 17), 0, slice(31, 33)),
    (Ellipsis, slice(None, None, 7)),
    (slice(5, 5),),
]


@pytest.mark.parametrize("selection", BASIC, ids=str)
def test_basic_selection(stored, selection):
    path, full = stored
    assert_near(np.asarray(zarr.open_array(path, mode="r")[selection]), np.asarray(full[selection]))


def test_advanced_selections(stored):
    path, full = stored
    array = zarr.open_array(path, mode="r")
    rows, columns, planes = [1, 17, 3], [0, 23], [39, 5, 31, 32]
    assert_near(array.oindex[rows, columns, planes], full[np.ix_(rows, columns, planes)])
    assert_near(array.oindex[rows, 2:9:2, 4], full[rows, 2:9:2, 4])
    assert_near(array.oindex[:, np.arange(24) % 5 == 0, :], full[:, ::5])
    points = [0, 19, 7, 7], [0, 23, 1, 1], [0, 39, 33, 2]
    assert_near(array.vindex[points], full[points])
    assert_near(array[rows], full[rows])
    mask = full > np.quantile(full, 0.99)
    assert_near(array[mask], full[mask])
    block = tuple(slice(0, extent) for extent in array.shards or array.chunks)
    assert_near(array.blocks[0, 0, 0], full[block])


def test_missing_chunks_are_the_fill_value(tmp_path):
    array = moec_zarr.open(
        tmp_path, mode="w", shape=SHAPE, dtype="f4", compressor=CODEC, chunks=CHUNKS, fill_value=np.nan
    )
    array[:16, :, :32] = DATA[:16, :, :32]
    array[16:] = np.nan
    assert array.nchunks_initialized == 1  # write_empty_chunks is off: no fit of nothing
    assert np.isnan(array[17, 3, 5])
    assert np.isnan(array[:, :, 32:]).all()
    assert psnr(DATA[:16, :, :32], array[:16, :, :32]) > 30


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_nan_comes_back_where_it_was(tmp_path, zarr_format):
    data = DATA.copy()
    data[3:9, 4:10, 5:25] = np.nan
    array = moec_zarr.open(
        tmp_path,
        mode="w",
        shape=SHAPE,
        dtype="f4",
        compressor=CODEC,
        chunks=CHUNKS,
        zarr_format=zarr_format,
        fill_value=np.nan,
        config={"write_empty_chunks": True},
    )
    array[:] = data
    assert array.nchunks_initialized == array.nchunks
    np.testing.assert_array_equal(np.isnan(array[:]), np.isnan(data))
    assert psnr(data, array[:]) > 25


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_part_of_a_chunk_can_be_written(tmp_path, zarr_format):
    array = moec_zarr.open(
        tmp_path, mode="w", shape=CHUNKS, dtype="f4", compressor=CODEC, chunks=CHUNKS, zarr_format=zarr_format
    )
    data = smooth(CHUNKS)
    array[:8] = data[:8]
    array[8:] = data[8:]
    assert psnr(data, array[:]) > 30


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:The `order` keyword argument has no effect:RuntimeWarning")
def test_memory_order(tmp_path, zarr_format):
    array = moec_zarr.open(
        tmp_path,
        mode="w",
        shape=CHUNKS,
        dtype="f4",
        compressor=CODEC,
        chunks=CHUNKS,
        order="F",
        zarr_format=zarr_format,
    )
    data = smooth(CHUNKS)
    array[:] = np.asfortranarray(data)
    assert psnr(data, zarr.open_array(tmp_path, mode="r")[:]) > 30
    assert_near(array[3:7, ::5, 8], array[:][3:7, ::5, 8])


def test_byte_order(tmp_path):
    array = moec_zarr.open(
        tmp_path, mode="w", shape=CHUNKS, dtype=">i2", compressor=CODEC, chunks=CHUNKS, zarr_format=2
    )
    data = smooth(CHUNKS, ">i2", scale=3e4)
    array[:] = data
    again = zarr.open_array(tmp_path, mode="r")
    assert again.dtype == np.dtype(">i2")
    assert psnr(data, again[:]) > 30


def test_metadata_of_format_2(tmp_path):
    array = zarr.open(
        tmp_path, mode="w", shape=CHUNKS, chunks=CHUNKS, dtype="f4", compressor=CODEC, zarr_format=2
    )
    metadata = json.loads((tmp_path / ".zarray").read_text())
    assert metadata["compressor"] == {"id": "moec", "ratio": 20, "effort": "fast"}
    array[:] = smooth(CHUNKS)
    assert psnr(smooth(CHUNKS), array[:]) > 30


def test_metadata_of_format_3(tmp_path):
    array = zarr.create_array(
        tmp_path, shape=CHUNKS, chunks=CHUNKS, dtype="f4", serializer=MoECSerializer(**FAST), compressors=None
    )
    metadata = json.loads((tmp_path / "zarr.json").read_text())
    assert metadata["codecs"] == [
        {"name": "moec_zarr.moec", "configuration": {"ratio": 20, "effort": "fast"}}
    ]
    array[:] = smooth(CHUNKS)
    assert psnr(smooth(CHUNKS), array[:]) > 30


def test_metadata_inside_shards(tmp_path):
    moec_zarr.open(tmp_path, mode="w", shape=SHAPE, dtype="f4", compressor=CODEC, **LAYOUTS["sharded"])
    (sharding,) = json.loads((tmp_path / "zarr.json").read_text())["codecs"]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["moec_zarr.moec"]


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "moec_zarr.moec"},
        {"name": "moec_zarr.moec", "configuration": {}},
        {"name": "moec_zarr.moec", "configuration": {"ratio": 20, "speed": 3}},
        {"name": "moec_zarr.other", "configuration": {"ratio": 20}},
    ],
)
def test_metadata_of_another_version_is_refused(entry):
    with pytest.raises(MoECError):
        MoECSerializer.from_dict(entry)
    assert MoECSerializer.from_dict(MoECSerializer(ratio=20).to_dict()) == MoECSerializer(ratio=20)


def test_serializer_is_its_settings():
    serializer = MoECSerializer(**FAST)
    assert serializer == pickle.loads(pickle.dumps(serializer))
    assert len({serializer, MoECSerializer(**FAST), MoECSerializer(ratio=21)}) == 2
    assert repr(serializer) == "MoECSerializer(ratio=20, effort='fast')"


@pytest.mark.parametrize("dtype", ["?", "c8", "M8[s]", "S3"])
@pytest.mark.parametrize("shards", [None, (32, 24, 64)])
def test_unsupported_dtypes_are_refused_on_creation(dtype, shards):
    with pytest.raises(UnsupportedArrayError):
        zarr.create_array(
            {},
            shape=SHAPE,
            chunks=CHUNKS,
            shards=shards,
            dtype=dtype,
            serializer=MoECSerializer(**FAST),
            compressors=None,
        )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_open_refuses_unsupported_ranks(zarr_format):
    with pytest.raises(UnsupportedArrayError, match="6 axes"):
        moec_zarr.open({}, mode="w", shape=(2,) * 6, dtype="f4", compressor=CODEC, zarr_format=zarr_format)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_open_refuses_unsupported_dtypes(zarr_format):
    with pytest.raises(UnsupportedArrayError):
        moec_zarr.open({}, mode="w", shape=SHAPE, dtype="c8", compressor=CODEC, zarr_format=zarr_format)


def test_open_chooses_chunks_and_the_default_format():
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
def test_open_an_existing_array(stored, mode):
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


def test_open_creates_only_where_it_may(tmp_path):
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


def test_open_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(MoECError, match=r"must be a MoECCodec.*MoECSerializer"):
        moec_zarr.open({}, mode="w", shape=CHUNKS, dtype="f4", compressor=MoECSerializer(**FAST))
    zarr.create_group(tmp_path)
    with pytest.raises(MoECError, match="group"):
        moec_zarr.open(tmp_path, mode="r")
    lossless = tmp_path / "lossless"
    zarr.create_array(lossless, shape=CHUNKS, dtype="f4")
    with pytest.raises(MoECError, match="compressor None"):
        moec_zarr.open(lossless, mode="r", compressor=CODEC)


def test_threads_and_pickles(stored):
    path, full = stored
    array = pickle.loads(pickle.dumps(moec_zarr.open(path, mode="r")))
    with ThreadPoolExecutor(4) as pool:
        for time, plane in enumerate(pool.map(lambda time: array[time], range(SHAPE[0]))):
            assert_near(plane, full[time])


def test_threads_may_write_chunks(tmp_path):
    data = smooth((64, 16, 16))
    array = moec_zarr.open(
        tmp_path, mode="w", shape=data.shape, chunks=(16, 16, 16), dtype="f4", compressor=CODEC
    )

    def write(start):
        array[start : start + 16] = data[start : start + 16]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, 64, 16)))
    assert psnr(data, array[:]) > 25


@pytest.mark.skipif(
    not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"), reason="zarr 3.2 brought this pipeline"
)
def test_synchronous_pipeline(tmp_path):
    data = smooth(CHUNKS)
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        array = moec_zarr.open(
            tmp_path, mode="w", shape=CHUNKS, dtype="f4", compressor=CODEC, chunks=CHUNKS, zarr_format=3
        )
        array[:] = data
        full = array[:]
        assert_near(array[3:7, ::5, 8], full[3:7, ::5, 8])
    assert psnr(data, full) > 30


NO_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
"""

READ = """
import zarr
array = zarr.open_array(sys.argv[1], mode="r")
assert array[3, 4:6].shape == (2, 40)
assert array[:].shape == array.shape
assert "torch" not in sys.modules or sys.modules["torch"] is None
"""


READ_WITH_DASK = """
import xarray as xr
ds = xr.open_zarr(sys.argv[1], consolidated=False)
assert ds.t.chunks is not None
assert ds.t.mean().compute() > 0
assert "torch" not in sys.modules or sys.modules["torch"] is None
assert "moec_zarr" in sys.modules
"""


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("prologue", ["import sys", NO_TORCH], ids=["plain", "without torch"])
def test_a_fresh_process_finds_the_codec(stored, prologue):
    run(prologue + READ, stored[0])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_and_dask_read_without_torch(tmp_path, zarr_format):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    ds = xr.Dataset({"t": (("z", "y", "x"), smooth(CHUNKS))})
    entries = moec_zarr.encoding(ds, CODEC, zarr_format=zarr_format)
    ds.to_zarr(tmp_path, zarr_format=zarr_format, encoding=entries, consolidated=False)
    run(NO_TORCH + READ_WITH_DASK, tmp_path)


def test_import_is_light():
    heavy = ("torch", "xarray", "dask", "matplotlib")
    run(f"import sys, moec_zarr; assert not set({heavy}) & set(sys.modules)")


def test_the_chunk_of_another_array_is_refused(tmp_path):
    """A chunk that was copied from elsewhere is an error, not data of another shape or dtype."""
    for name, shape, dtype in (
        ("a", (16, 24, 32), "f4"),
        ("b", (16, 32, 24), "f4"),
        ("c", (16, 24, 32), "f8"),
    ):
        array = moec_zarr.open(
            tmp_path / name, mode="w", shape=shape, chunks=shape, dtype=dtype, zarr_format=3,
            compressor=MoECCodec(**FAST), config={"write_empty_chunks": True},
        )  # fmt: skip
        array[...] = 7.0
    first = moec_zarr.open(tmp_path / "a", mode="r")
    for name in ("b", "c"):
        (tmp_path / "a/c/0/0/0").write_bytes((tmp_path / name / "c/0/0/0").read_bytes())
        with pytest.raises(moec_zarr.CorruptStreamError, match="expected"):
            first[...]
