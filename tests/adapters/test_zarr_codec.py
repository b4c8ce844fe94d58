"""The codec within zarr: metadata, both formats, missing chunks, memory order, threads."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.core.array_spec import ArrayConfig, ArraySpec

import moec_zarr
from moec_zarr import MoECError, MoECSerializer, UnsupportedArrayError
from tests.adapters.layouts import CHUNK, CHUNKS, CODEC, DATA, LAYOUTS, SHAPE, SHARDS
from tests.support.fields import assert_near, psnr, rough, smooth
from tests.support.fits import fast

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])
SERIALIZER = CODEC.serializer()
pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")


def new(path, **options):
    """A new array, of one chunk unless `options` say otherwise."""
    given = {"mode": "w", "shape": CHUNKS, "chunks": CHUNKS, "dtype": "f4", "compressor": CODEC}
    return moec_zarr.open(path, **given | options)


def test_round_trip(stored):
    _, full = stored
    assert (full.shape, full.dtype) == (SHAPE, DATA.dtype)
    assert psnr(DATA, full) > 25


@FORMATS
def test_a_bound_is_kept_through_zarr(tmp_path, zarr_format):
    """Whole, in parts, and in chunks at the edge, which zarr pads."""
    shape = (13, 20, 21)
    data, codec = rough(shape), moec_zarr.MoECCodec(max_error=3.0, effort="fast")
    new(tmp_path, shape=shape, chunks=(8, 12, 16), compressor=codec, zarr_format=zarr_format)[:] = data
    again = zarr.open(tmp_path, mode="r")
    for selection in (slice(None), (slice(2, 12, 3), 7), (Ellipsis, slice(15, 19))):
        assert np.abs(again[selection] - data[selection]).max() <= 3.0
    assert moec_zarr.inspect(next(iter(streams(tmp_path)))).bound == 3.0


def streams(path):
    """The chunks of a store."""
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith(".") and file.name != "zarr.json":
            yield file.read_bytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BitRound", {"keepbits": 10}),
        ("Delta", {"dtype": "<f4"}),
        ("FixedScaleOffset", {"offset": 0, "scale": 100, "dtype": "<f4"}),
        ("FixedScaleOffset", {"offset": 0, "scale": 100, "dtype": "<f4", "astype": "<i2"}),
    ],
)
def test_a_filter_that_changes_the_chunk_is_refused_when_it_is_written(tmp_path, name, options):
    """No reader could tell the shape and the dtype of the chunk."""
    changing = getattr(pytest.importorskip("zarr.codecs.numcodecs"), name)(**options)
    layout = {"shape": CHUNKS, "chunks": CHUNKS, "dtype": "f4"}
    array = zarr.create_array(
        tmp_path, filters=[changing], serializer=SERIALIZER, compressors=None, overwrite=True, **layout
    )
    with pytest.raises(UnsupportedArrayError, match="without filters="):
        array[:] = CHUNK
    assert not list(streams(tmp_path))
    with pytest.raises(UnsupportedArrayError, match="leave filters= out"):
        new(tmp_path, filters=[changing])
    with pytest.raises(UnsupportedArrayError, match="leave filters= out"):
        new(tmp_path, filters=[numcodecs.BitRound(keepbits=10)], zarr_format=2)


def test_a_transposition_before_the_codec_keeps_the_bound(tmp_path):
    transposed = zarr.codecs.TransposeCodec(order=(2, 0, 1))
    array = new(tmp_path, filters=[transposed], compressor=moec_zarr.MoECCodec(max_error=3.0, effort="fast"))
    array[:] = CHUNK
    assert np.abs(array[:] - CHUNK).max() <= 3.0
    assert np.abs(array[1:3, 5] - CHUNK[1:3, 5]).max() <= 3.0
    assert new(tmp_path, filters=[transposed.to_dict()]).filters == (transposed,)


# -------------------------------------------------------------------------------- metadata


def test_metadata_of_format_2(tmp_path):
    array = zarr.open(
        tmp_path, mode="w", shape=CHUNKS, chunks=CHUNKS, dtype="f4", compressor=CODEC, zarr_format=2
    )
    metadata = json.loads((tmp_path / ".zarray").read_text())
    assert metadata["compressor"] == {"id": "moec", "ratio": 12, "effort": "fast"}
    array[:] = CHUNK
    assert psnr(CHUNK, array[:]) > 30


def test_metadata_of_format_3(tmp_path):
    array = zarr.create_array(
        tmp_path, shape=CHUNKS, chunks=CHUNKS, dtype="f4", serializer=SERIALIZER, compressors=None
    )
    metadata = json.loads((tmp_path / "zarr.json").read_text())
    assert metadata["codecs"] == [
        {"name": "moec_zarr.moec", "configuration": {"ratio": 12, "effort": "fast"}}
    ]
    array[:] = CHUNK
    assert psnr(CHUNK, array[:]) > 30


def test_metadata_inside_shards(tmp_path):
    new(tmp_path, shape=SHAPE, **LAYOUTS["sharded"])
    (sharding,) = json.loads((tmp_path / "zarr.json").read_text())["codecs"]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["moec_zarr.moec"]


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "moec_zarr.moec"},
        {"name": "moec_zarr.moec", "configuration": {}},
        {"name": "moec_zarr.moec", "configuration": {"ratio": 20, "speed": 3}},
        {"name": "moec_zarr.moec", "configuration": {"ratio": 20, "max_error": 1}},
        {"name": "moec_zarr.other", "configuration": {"ratio": 20}},
    ],
)
def test_other_metadata_is_refused(entry):
    with pytest.raises(MoECError):
        MoECSerializer.from_dict(entry)
    for target in {"ratio": 20}, {"psnr": 40}, {"max_error": 0.5}:
        assert MoECSerializer.from_dict(MoECSerializer(**target).to_dict()) == MoECSerializer(**target)


@pytest.mark.parametrize("dtype", ["?", "c8", "M8[s]", "S3"])
@pytest.mark.parametrize("shards", [None, SHARDS])
def test_unsupported_dtypes_are_refused_on_creation(dtype, shards):
    with pytest.raises(UnsupportedArrayError):
        zarr.create_array(
            {},
            shape=SHAPE,
            chunks=CHUNKS,
            shards=shards,
            dtype=dtype,
            serializer=SERIALIZER,
            compressors=None,
        )


# ---------------------------------------------------------------------------------- chunks


def test_missing_chunks_are_the_fill_value(tmp_path):
    array = new(tmp_path, shape=SHAPE, fill_value=np.nan)
    array[:4, :, :16] = DATA[:4, :, :16]
    array[4:] = np.nan
    assert array.nchunks_initialized == 1  # write_empty_chunks is off: no fit of nothing
    assert np.isnan(array[5, 3, 5])
    assert np.isnan(array[:, :, 16:]).all()
    assert psnr(DATA[:4, :, :16], array[:4, :, :16]) > 30


@FORMATS
def test_nan_comes_back_where_it_was(tmp_path, zarr_format):
    data = DATA[:, :, :16].copy()
    data[1:5, 4:10, 5:14] = np.nan
    options = {"shape": data.shape, "fill_value": np.nan, "config": {"write_empty_chunks": True}}
    array = new(tmp_path, zarr_format=zarr_format, **options)
    array[:] = data
    assert array.nchunks_initialized == array.nchunks
    np.testing.assert_array_equal(np.isnan(array[:]), np.isnan(data))
    assert psnr(data, array[:]) > 25


@FORMATS
def test_a_part_of_a_chunk_can_be_written(tmp_path, zarr_format):
    array = new(tmp_path, zarr_format=zarr_format)
    array[:2] = CHUNK[:2]
    with pytest.warns(UserWarning, match="lose accuracy again"):
        array[2:] = CHUNK[2:]
    assert psnr(CHUNK, array[:]) > 30


@FORMATS
@pytest.mark.filterwarnings("ignore:The `order` keyword argument has no effect:RuntimeWarning")
def test_memory_order(tmp_path, zarr_format):
    array = new(tmp_path, order="F", zarr_format=zarr_format)
    array[:] = np.asfortranarray(CHUNK)
    assert psnr(CHUNK, zarr.open_array(tmp_path, mode="r")[:]) > 30
    assert_near(array[1:3, ::5, 8], array[:][1:3, ::5, 8])


def test_byte_order(tmp_path):
    data = smooth(CHUNKS, ">i2", scale=3e4)
    array = new(tmp_path, dtype=">i2", compressor=moec_zarr.MoECCodec(**fast(data, 300)), zarr_format=2)
    array[:] = data
    again = zarr.open_array(tmp_path, mode="r")
    assert again.dtype == np.dtype(">i2")
    assert psnr(data, again[:]) > 30


def test_the_chunk_of_another_array_is_refused(tmp_path):
    """A chunk that was copied from elsewhere is an error, not data of another shape or dtype."""
    for name, shape, dtype in (
        ("a", (16, 24, 32), "f4"),
        ("b", (16, 32, 24), "f4"),
        ("c", (16, 24, 32), "f8"),
    ):
        array = new(
            tmp_path / name, shape=shape, chunks=shape, dtype=dtype, zarr_format=3,
            config={"write_empty_chunks": True},
        )  # fmt: skip
        array[...] = 7.0
    first = moec_zarr.open(tmp_path / "a", mode="r")
    for name in ("b", "c"):
        (tmp_path / "a/c/0/0/0").write_bytes((tmp_path / name / "c/0/0/0").read_bytes())
        with pytest.raises(moec_zarr.CorruptStreamError, match="expected"):
            first[...]


# --------------------------------------------------------------------- threads and processes


def test_threads_read_a_pickled_array(stored):
    path, full = stored
    array = pickle.loads(pickle.dumps(moec_zarr.open(path, mode="r")))
    with ThreadPoolExecutor(4) as pool:
        for time, plane in enumerate(pool.map(lambda time: array[time], range(SHAPE[0]))):
            assert_near(plane, full[time])


def test_threads_may_write_chunks(tmp_path):
    data = rough((16, 8, 24))
    array = new(tmp_path, shape=data.shape, chunks=(4, 8, 24))

    def write(start):
        array[start : start + 4] = data[start : start + 4]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, 16, 4)))
    assert psnr(data, array[:]) > 25


class Stored:
    """What zarr's synchronous pipeline reads a chunk by."""

    def __init__(self, stream):
        self.stream = stream

    def get_sync(self, *, prototype):
        return None if self.stream is None else prototype.buffer.from_bytes(self.stream)


def test_a_part_of_a_chunk_is_decoded_synchronously(tmp_path):
    """As the pipeline of zarr 3.2 and later calls it, by every zarr."""
    array = new(tmp_path, zarr_format=3)
    array[:] = CHUNK
    (stream,) = streams(tmp_path)
    spec = ArraySpec(
        CHUNKS, array.metadata.dtype, np.float32(0), ArrayConfig("C", False), default_buffer_prototype()
    )
    for selection in ((slice(1, 3), slice(None, None, 5), slice(8, 9)), (2, 3, 4), (slice(None),) * 3):
        part = SERIALIZER._decode_partial_sync(Stored(stream), selection, spec).as_numpy_array()
        assert_near(part, np.asarray(array[:][selection]))
    # zarr fills in the fill value where nothing was written.
    assert SERIALIZER._decode_partial_sync(Stored(None), (2, 3, 4), spec) is None


@pytest.mark.skipif(
    not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"), reason="zarr 3.2 brought this pipeline"
)
def test_synchronous_pipeline(tmp_path):
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        array = new(tmp_path, zarr_format=3)
        array[:] = CHUNK
        full = array[:]
        assert_near(array[1:3, ::5, 8], full[1:3, ::5, 8])
    assert psnr(CHUNK, full) > 30
