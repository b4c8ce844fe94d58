"""The codec is found among those of an array, whatever its format."""

import numcodecs
import pytest
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from moec_zarr import MoECCodec, MoECSerializer
from moec_zarr.adapters.find import codec_of, find_codec
from tests.adapters.layouts import CHUNKS, CODEC


def test_codec_of_a_stored_array(stored):
    path, _ = stored
    assert codec_of(zarr.open_array(path, mode="r")) == CODEC


@pytest.mark.parametrize("options", [{"zarr_format": 2}, {}, {"shards": CHUNKS}], ids=["v2", "v3", "sharded"])
def test_arrays_of_other_codecs_have_none(options):
    assert codec_of(zarr.create_array({}, shape=CHUNKS, chunks=CHUNKS, dtype="f4", **options)) is None


@pytest.mark.parametrize(
    ("codecs", "expected"),
    [
        ([], None),
        ([None], None),
        ([numcodecs.Zstd(), None], None),
        ([BytesCodec(), ZstdCodec()], None),
        ([None, CODEC], CODEC),
        ([numcodecs.Delta("f4"), MoECCodec(psnr=40)], MoECCodec(psnr=40)),
        ([MoECSerializer(psnr=40, seed=3)], MoECCodec(psnr=40, seed=3)),
        ([ShardingCodec(chunk_shape=CHUNKS, codecs=[CODEC.serializer()])], CODEC),
        ([ShardingCodec(chunk_shape=CHUNKS, codecs=[BytesCodec()])], None),
    ],
    ids=str,
)
def test_found_among_others(codecs, expected):
    found = find_codec(codecs)
    assert found == expected
    assert type(found) is type(expected)
