"""Codecs that were trained on some chunks of a variable: what their streams hold, and their targets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import DictionaryError, MoECCodec, MoECError, MoECSerializer, inspect, train_dictionary
from moec_zarr.bitstream.container import Section, read_stream
from moec_zarr.codec.decode import decode, decode_group
from moec_zarr.dictionary import Dictionary, Entry
from moec_zarr.fit.advice import read_advice
from tests.support.fields import psnr

SHAPE, BALL = (12, 16, 20), (24, 24, 24)


def chunk(number: int, land: bool = False) -> np.ndarray:
    """Waves of one kind, other ones in each chunk, with noise; land that never moves."""
    rng = np.random.default_rng(number)
    t, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in SHAPE), indexing="ij")
    field = sum(
        np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + 5 * t + rng.uniform(0, 6)) for _ in range(4)
    )
    field = (10 * field + rng.normal(0, 0.1, SHAPE)).astype("f4")
    if land:
        field[:, (y[0] - 0.3) ** 2 + (x[0] + 0.1 * np.sin(9 * y[0]) - 0.4) ** 2 < 0.1] = np.nan
    return field


TRAINED_ON = [chunk(n, land=True) for n in range(5)]
OTHERS = [chunk(n, land=True) for n in range(20, 24)]


@pytest.fixture(scope="module")
def trained() -> MoECCodec:
    return train_dictionary(MoECCodec(ratio=50, effort="fast"), TRAINED_ON)


def test_training_is_repeatable_and_leaves_the_rest_as_it_is(trained):
    again = train_dictionary(trained, iter(TRAINED_ON))  # a dictionary that is there is replaced
    assert again == trained
    assert replace(trained, dictionary=None) == MoECCodec(ratio=50, effort="fast")
    assert len(repr(trained)) < 100


def test_the_mask_and_the_head_stand_in_the_dictionary_alone(trained):
    plain = replace(trained, dictionary=None)
    gains = []
    for array in OTHERS:
        stream = trained.encode(array)
        held = read_stream(stream)[1]
        assert Section.SHARED in held
        assert Section.MASK not in held
        assert len(stream) <= array.nbytes / 50
        decoded = trained.decode(stream)
        np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
        own = plain.encode(array)
        assert Section.MASK in read_stream(own)[1]
        gains.append(psnr(array, decoded) - psnr(array, plain.decode(own)))
    assert np.median(gains) > 0.5  # of 300 bytes the mask takes 22, a head 20


def test_the_same_bytes_each_time(trained):
    assert trained.encode(OTHERS[0]) == trained.encode(OTHERS[0].copy())


def test_other_readers_refuse_the_stream(trained):
    stream = trained.encode(OTHERS[0])
    for codec in replace(trained, dictionary=None), train_dictionary(trained, [chunk(n) for n in range(3)]):
        with pytest.raises(DictionaryError, match="metadata"):
            codec.decode(stream)
        with pytest.raises(DictionaryError):
            codec.decode(stream, out=np.empty(SHAPE, "f4"))
    with pytest.raises(DictionaryError):
        inspect(stream)
    assert inspect(stream, codec=trained).kind == "transform"


@pytest.mark.parametrize(
    "target", [{"max_error": 0.5}, {"max_relative_error": 0.05}, {"psnr": 45}, {"ratio": 40, "scale": "log"}]
)
@pytest.mark.parametrize("land", [False, True])
def test_targets_hold(target, land):
    codec = train_dictionary(MoECCodec(**target, effort="fast"), [chunk(n, land) for n in range(4)])
    array = chunk(30, land)
    stream = codec.encode(array)
    decoded = codec.decode(stream)
    valid = np.isfinite(array)
    np.testing.assert_array_equal(np.isfinite(decoded), valid)
    error = np.abs(array[valid].astype("f8") - decoded[valid])
    if "max_error" in target:
        assert error.max() <= 0.5
    elif "max_relative_error" in target:
        assert (error <= 0.05 * np.abs(array[valid])).all()
    elif "psnr" in target:
        assert psnr(array, decoded) >= 45
    else:
        assert len(stream) <= array.nbytes / 40


@pytest.mark.parametrize("target", [{"max_error": 0.5}, {"psnr": 45}], ids=str)
def test_streams_are_smaller_at_the_same_quality(target):
    codec = train_dictionary(MoECCodec(**target, effort="fast"), [chunk(n) for n in range(4)])
    plain = replace(codec, dictionary=None)
    sizes = [(len(codec.encode(array)), len(plain.encode(array))) for array in map(chunk, range(30, 34))]
    trained, own = np.sum(sizes, axis=0)
    assert trained < own


def test_a_chunk_of_another_kind_takes_no_harm(trained):
    """Noise in few columns, and other shapes."""
    rng = np.random.default_rng(0)
    odd = np.zeros(SHAPE, "f4")
    odd[:, 3, 5] = rng.normal(size=12)
    odd[4] += rng.normal(size=SHAPE[1:])
    for array in odd, chunk(3)[:5], chunk(3)[:1], chunk(3)[:, 0], np.zeros(SHAPE, "f4"), chunk(1)[:0]:
        codec = replace(trained, ratio=4)
        plain = replace(codec, dictionary=None)
        stream, own = codec.encode(array), plain.encode(array)
        if array.size:
            assert len(stream) <= max(array.nbytes / 4, len(own))
        decoded = codec.decode(stream)
        np.testing.assert_array_equal(decoded.shape, array.shape)
        if array.size and np.ptp(array):
            assert psnr(array, decoded) >= psnr(array, plain.decode(own)) - 0.5


def test_bytes_for_an_entry_that_is_not_taken_are_not_left_over():
    """Of a stream of some hundred bytes they are a good part."""
    frequency = np.fft.fftfreq(8) * 8
    waves = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*[frequency] * 3)))
    waves[0, 0, 0] = 1

    def cloud(seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).standard_normal((8, 8, 8))
        return np.fft.ifftn(np.fft.fftn(noise) * waves**-1.2).real.astype("f4")

    arrays = [cloud(seed) for seed in range(8)]
    plain = MoECCodec(ratio=4, effort="fast")
    codec = train_dictionary(plain, arrays[:4])
    assert codec.dictionary
    for array in arrays[4:]:
        stream = codec.encode(array)
        assert len(stream) > 0.97 * array.nbytes / 4
        assert psnr(array, codec.decode(stream)) > psnr(array, plain.decode(plain.encode(array))) - 0.2


def test_values_that_repeat_are_stored_rounded_though_fits_won_so_far():
    codec = train_dictionary(MoECCodec(max_error=0.5, effort="fast"), [chunk(n) for n in range(4)])
    odd = np.where(np.random.default_rng(0).random((24, 32, 40)) < 0.01, 40, 0).astype("f4")
    own = replace(codec, dictionary=None).encode(odd)
    assert inspect(own).kind == "rounded" or inspect(own).kind == "lossless"
    assert len(codec.encode(odd)) <= 1.05 * len(own)


def test_where_rounded_values_always_won_under_a_ratio_a_smooth_chunk_is_still_fitted():
    rng = np.random.default_rng(7)
    wet = np.add.outer(np.add.outer(np.arange(16), np.arange(20)), np.arange(24)) % 30 < 10
    showers = [np.where(wet, np.exp(rng.normal(5, 1.5, wet.shape)), 0).astype("f4") for _ in range(4)]
    codec = train_dictionary(MoECCodec(ratio=16, effort="fast"), showers[:3])
    assert read_advice(codec.shared).fits_lost
    stream = codec.encode(showers[3])
    assert Section.INTEGERS in read_stream(stream)[1]
    assert psnr(showers[3], codec.decode(stream)) > 30
    x = np.linspace(-1, 1, 24)
    slopes = np.add.outer(np.linspace(-1, 1, 16), np.cos(2 * x[:20]))
    hills = np.maximum(0, np.add.outer(slopes, np.sin(4 * x))).repeat(5, axis=0)
    stream = codec.encode(hills.astype("f4"))
    assert len(stream) <= hills.size * 4 / 16
    plain = replace(codec, dictionary=None)
    reached = [psnr(hills, each.decode(each.encode(hills.astype("f4")))) for each in (codec, plain)]
    assert reached[0] > reached[1] - 0.2


def test_tiny_chunks_unlike_the_others_take_no_harm():
    rng = np.random.default_rng(5)
    tiny = [chunk(number)[:8, :8, :8] for number in range(4)]
    codec = train_dictionary(MoECCodec(ratio=20, effort="fast"), tiny)
    plain = replace(codec, dictionary=None)
    for array in (np.rint(tiny[0] / 10), np.where(rng.random((8, 8, 8)) < 0.02, 9, 0), chunk(20)[:8, :8, :8]):
        values = array.astype("f4")
        assert psnr(values, codec.decode(codec.encode(values))) >= psnr(
            values, plain.decode(plain.encode(values))
        )


def test_constant_chunks_share_nothing():
    codec = MoECCodec(ratio=4, effort="fast")
    assert train_dictionary(codec, [np.full(SHAPE, n, "f4") for n in range(3)]).dictionary is None


def test_too_few_chunks_are_refused():
    with pytest.raises(MoECError, match="got 1 chunks"):
        train_dictionary(MoECCodec(ratio=4), [chunk(0)])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_zarr_formats_keep_it(tmp_path, trained, zarr_format):
    data = np.concatenate(OTHERS)
    array = moec_zarr.open(
        tmp_path / "a.zarr", mode="w", shape=data.shape, chunks=SHAPE, dtype="f4", compressor=trained,
        zarr_format=zarr_format,
    )  # fmt: skip
    array[...] = data
    metadata = (tmp_path / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zarray")).read_text()
    assert trained.dictionary in json.dumps(json.loads(metadata))
    again = zarr.open(tmp_path / "a.zarr", mode="r")
    whole = again[...]
    for number, each in enumerate(OTHERS):
        expected = trained.decode(trained.encode(each))
        np.testing.assert_array_equal(whole[12 * number : 12 * number + 12], expected)
    np.testing.assert_allclose(again[10:30, 4, ::3], whole[10:30, 4, ::3], rtol=1e-4)
    infos = [info for _, info in moec_zarr.archive.inspection.inspect_streams(again)]
    assert [info.shape for info in infos] == [SHAPE] * 4
    assert all("shared" in info.sections for info in infos)


def test_a_group_of_parts(trained):
    streams = [trained.encode(each) for each in OTHERS]
    part = (slice(2, 5), slice(None), 7)
    for own, stream in zip(
        decode_group(streams, [part] * 4, shape=SHAPE, dictionary=trained.shared), streams, strict=True
    ):
        expected = decode(stream, dictionary=trained.shared)[part]
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)  # of values up to 20


@pytest.mark.torch
def test_torch_decodes_it_too(trained):
    stream = trained.encode(OTHERS[0])
    expected = trained.decode(stream)
    with moec_zarr.config.set(decoder="torch", cache=0):
        np.testing.assert_allclose(trained.decode(stream), expected, rtol=1e-3, atol=1e-3)


def ball(number: int) -> np.ndarray:
    """A ball with a sharp edge, elsewhere in each chunk."""
    rng = np.random.default_rng(number)
    place = np.stack(np.meshgrid(*map(np.arange, BALL), indexing="ij"), axis=-1)
    distance = np.linalg.norm(place - rng.uniform(9, 15, 3), axis=-1)
    return (np.where(distance < rng.uniform(6, 9), 90, 10) + rng.normal(0, 1, BALL)).astype("f4")


def test_linear_experts_stand_in_the_dictionary_alone():
    codec = train_dictionary(MoECCodec(ratio=150, effort="fast"), [ball(n) for n in range(6)])
    without = replace(codec, dictionary=None)
    assert 10 in {entry.section for entry in codec.shared.entries}
    gains = []
    for number in range(10, 13):
        array = ball(number)
        stream = codec.encode(array)
        assert len(stream) <= array.nbytes / 150
        held, info = read_stream(stream)[1], inspect(stream, codec=codec)
        assert len(held.get(Section.LINEAR_EXPERTS, b"")) <= 1
        assert info.sections["linear_experts"] <= 1
        decoded = codec.decode(stream)
        gains.append(psnr(array, decoded) - psnr(array, without.decode(without.encode(array))))
        part = decode(stream, (slice(3, 9), slice(None), 5), dictionary=codec.shared)
        np.testing.assert_allclose(part, decoded[3:9, :, 5], rtol=1e-4)
    assert min(gains) > 0.2


def test_the_serializer_trains_too():
    codec = train_dictionary(MoECSerializer(ratio=50, effort="fast"), TRAINED_ON)
    assert isinstance(codec, MoECSerializer)
    assert MoECSerializer.from_dict(codec.to_dict()) == codec


def test_experts_of_a_chunk_that_begin_like_an_entry_are_its_own():
    """Bytes behind an entry would be read as a shift, or refused."""
    codec, array = MoECCodec(ratio=40, effort="fast"), ball(1)
    stream = codec.encode(array)
    own = read_stream(stream)[1][Section.LINEAR_EXPERTS]
    for length in 1, len(own) - 5, len(own) - 1:
        other = replace(codec, dictionary=Dictionary.make([Entry(10, own[:length])]).text)
        assert other.encode(array) == stream
    same = replace(codec, dictionary=Dictionary.make([Entry(10, own)]).text)
    assert psnr(array, same.decode(same.encode(array))) >= psnr(array, codec.decode(stream))
