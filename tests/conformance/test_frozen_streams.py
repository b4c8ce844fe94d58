"""Streams written once must decode for ever, to the package as to the reference decoder."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.errors import CorruptStreamError, MoECError, UnsupportedVersionError
from moec_zarr.settings import Settings
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import (
    BASES,
    DICTIONARIES,
    EXPERTS,
    FEATURES,
    REFUSED,
    decode_by_reference,
    list_refused,
    paths,
)
from tests.support.decoders import assert_agrees, assert_same_parts
from tests.support.fields import psnr, smooth
from tests.support.streams import with_checksum


@pytest.fixture(scope="module")
def decoded():
    """All frozen streams, decoded by the reference decoder."""
    return {feature: decode_by_reference(feature, paths(feature)[0].read_bytes()) for feature in FEATURES}


@pytest.mark.parametrize("feature", FEATURES)
def test_frozen_stream(feature):
    stream_path, expected_path = paths(feature)
    stream, expected = stream_path.read_bytes(), np.load(expected_path)["expected"]
    dictionary = DICTIONARIES.get(feature)
    assert_same_parts(stream, dictionary)
    array = decode(stream, dictionary=dictionary)
    assert_agrees(stream, array, expected, dictionary)
    assert_agrees(stream, decode_by_reference(feature, stream).array, expected, dictionary)
    data = FEATURES[feature][0]
    assert array.dtype == data.dtype
    assert array.flags.f_contiguous == data.flags.f_contiguous
    np.testing.assert_array_equal(np.isnan(array), np.isnan(data))


def test_every_frozen_file_belongs_to_a_feature():
    folder = paths("constant")[0].parent
    expected = {path.name for feature in FEATURES for path in paths(feature)} | {REFUSED.name}
    expected |= {paths(feature)[0].with_suffix(".dictionary").name for feature in DICTIONARIES}
    assert {path.name for path in folder.iterdir()} == expected


def test_frozen_dictionaries():
    for feature, dictionary in DICTIONARIES.items():
        assert paths(feature)[0].with_suffix(".dictionary").read_text() == dictionary.text


def test_streams_that_are_refused():
    frozen = [json.loads(line) for line in REFUSED.read_text().splitlines()]
    assert frozen == list_refused()
    errors = {"corrupt": CorruptStreamError, "version": UnsupportedVersionError}
    for each in frozen:
        with pytest.raises(MoECError) as raised:
            decode(bytes.fromhex(each["stream"]))
        assert raised.type is errors[each["error"]], each["name"]


def test_networks_of_the_frozen_streams(decoded):
    experts = {"one_expert": 1, "experts": 3, "mask": 1, "big_endian_f_order": 1, "uint64": 1}
    for feature, number in (experts | {"rank_1": 1, "rank_5": 1}).items():
        assert decoded[feature].network.experts == number
        assert decoded[feature].coefficients is None
    assert set(decoded["transform_and_experts"].sections) == {4, 6}
    assert decoded["transform_and_experts"].network.experts == 2


def test_transforms_of_the_frozen_streams(decoded):
    for feature in "transform", "transform_mask", "transform_rank_1", "transform_rank_5":
        assert decoded[feature].coefficients is not None
        assert decoded[feature].network is None
    for feature, expected in BASES.items():
        bases = decoded[feature].coefficients.bases
        assert [(b.levels, b.joint) for b in bases] == [(b.levels, b.joint) for b in expected]
        stored = open_stream(paths(feature)[0].read_bytes()).coefficients.bases
        assert stored == expected
    assert any(basis.edge_weights for basis in BASES["transform_graph"])
    largest = [np.abs(each.coefficients.integers).max() for each in decoded.values() if each.coefficients]
    assert max(largest) > 63  # with an excess


def test_residuals_of_the_frozen_streams(decoded):
    """Every valid value of the original is within the bound of what the reference decoder returns."""
    sections = {"residual": {5, 6}, "residual_mask": {2, 5, 6}, "residual_int16": {5, 6}}
    sections |= {"residual_alone": {5}, "residual_network": {4, 5}}
    for feature, expected in sections.items():
        data, settings = FEATURES[feature]
        assert set(decoded[feature].sections) == expected
        assert decoded[feature].residual.bound == settings["max_error"]
        valid = np.isfinite(data)
        error = np.abs(data[valid].astype("f8") - decoded[feature].array[valid])
        assert error.max() <= settings["max_error"]
    corrected = {feature for feature in sections if decoded[feature].residual.corrections.any()}
    assert corrected == sections.keys() - {"residual_alone"}


def test_linear_experts_of_the_frozen_streams(decoded):
    """One with gates of both kinds and a shift; one beside corrections, which keep their bound."""
    assert set(decoded["restored"].sections) == {6, 10}
    experts = decoded["restored"].coefficients.experts
    assert experts.steepness
    assert experts.value
    assert experts.shift
    assert set(decoded["restored_residual"].sections) == {5, 6, 10}
    assert decoded["restored_residual"].coefficients.experts.steepness
    data, settings = FEATURES["restored_residual"]
    error = np.abs(data.astype("f8") - decoded["restored_residual"].array)
    assert error.max() <= settings["max_error"] < 4 * error.max()
    # Without them, others come out.
    for feature in "restored", "restored_residual":
        stream = paths(feature)[0].read_bytes()
        section = open_stream(stream).sections["linear_experts"]
        plain = reference_decoder.decode(with_checksum(stream[8 : -section - 2])).array
        assert psnr(FEATURES[feature][0], plain) < psnr(FEATURES[feature][0], decoded[feature].array) - 0.3


def test_scales_of_the_frozen_streams(decoded):
    """The reference decoder keeps the relative bound, zeros and signs."""
    flags = {"scale": "zeros signs", "scale_positive": "", "scale_knee": "knee", "scale_uint64": "knee"}
    flags |= {"scale_int16": "knee", "scale_missing": "knee", "scale_ratio": "zeros"}
    for feature, expected in flags.items():
        (data, settings), scale = FEATURES[feature], decoded[feature].scale
        held = {
            "knee": scale.knee > 0,
            "zeros": 9 in decoded[feature].sections,
            "signs": scale.signs is not None,
        }
        assert [name for name, is_held in held.items() if is_held] == expected.split()
        assert 6 in decoded[feature].sections
        valid = np.isfinite(data)
        exact, array = data[valid].astype("f8"), decoded[feature].array[valid].astype("f8")
        if "max_relative_error" in settings:
            allowed = np.maximum(settings["max_relative_error"] * np.abs(exact), settings.get("max_error", 0))
            assert (np.abs(exact - array) <= allowed).all()
    assert decoded["scale_ratio"].residual is None


def test_exact_values_of_the_frozen_streams(decoded):
    data, array = FEATURES["exact"][0], decoded["exact"].array
    assert [value for value, _ in decoded["exact"].exact_values] == [20, 80]
    for value in 20, 80:
        np.testing.assert_array_equal(array[data == value], value)
    assert set(decoded["exact"].sections) == {6, 9}


def test_integers_of_the_frozen_streams(decoded):
    """Levels, whether there is a table, and how what the stream ends with is coded."""
    bits, grid, ladder, table = 0, 1, 2, 128
    levels = {"bits": bits, "grid": grid, "grid_uint64": grid, "ladder": ladder, "knee": ladder}
    levels |= {"table": table, "blank": bits, "planes": bits, "folded": grid, "repeats": bits}
    for name, number in levels.items():
        feature = f"integers_{name}"
        data, settings = FEATURES[feature]
        assert decoded[feature].sections.keys() == ({1, 2, 8} if name == "blank" else {8})
        assert decoded[feature].sections[8][0] & ~0x60 == number, name
        absolute, relative = settings["rounded"]
        valid = np.isfinite(data)
        x, y = data[valid].astype("f8"), decoded[feature].array[valid].astype("f8")
        assert (np.abs(x - y) <= np.maximum(absolute, relative * np.abs(x))).all()
    # Of bits without a table: zstd frames, and predictions with flags for values that repeat and blank ones.
    heads = {"planes": [0, 4, 0x28, 0xB5, 0x2F, 0xFD], "blank": [1, 3], "repeats": [1, 1], "bits": [1, 0]}
    for name, head in heads.items():
        assert list(decoded[f"integers_{name}"].sections[8][2:])[: len(head)] == head


def test_entries_of_the_frozen_stream(decoded):
    """A whole mask, and the start of a transform, stand in the dictionary alone."""
    shared, (_, masks, head, *_) = decoded["shared"], DICTIONARIES["shared"].entries
    assert set(shared.sections) == {6, 11}
    assert list(shared.sections[11][4:]) == [1, 2]
    assert [str(value) for value, _ in shared.masked_values] == ["nan", "inf", "-inf"]
    *weights, floor, rise, power, offset, slope = shared.coefficients.context
    context = bytes(weights) + struct.pack("<bbBhh", floor, rise, power, offset, slope)
    assert head.data == bytes(3) + context  # cosines on three axes
    own = decoded["transform_mask"]
    assert len(masks.data) == len(own.sections[2])
    np.testing.assert_array_equal(shared.masked_values[0][1], own.masked_values[0][1])
    assert head.data not in shared.sections[6]
    restored = decoded["restored_shared"]
    assert restored.sections.keys() == {1, 6, 10, 11}
    assert [*restored.sections[10], *restored.sections[11][4:]] == [256 - 90, 4]
    np.testing.assert_array_equal(restored.coefficients.experts.taps, EXPERTS.taps)
    assert restored.coefficients.experts.shift == -122


def test_other_features_of_the_frozen_streams(decoded):
    for feature in "mask", "transform_mask":
        assert [str(value) for value, _ in decoded[feature].masked_values] == ["nan", "inf", "-inf"]
    assert decoded["mask_packed"].sections[2][2] & 0x80
    assert [value for value, _ in decoded["missing"].masked_values] == [-999]
    assert decoded["bounding_box"].bounding_box == (8, 9, 10) != decoded["bounding_box"].shape
    assert 3 in decoded["lossless"].sections
    assert decoded["constant"].sections == {}
    assert decoded["big_endian_f_order"].is_fortran
    assert decoded["big_endian_f_order"].dtype.str == ">f4"
    assert decoded["int16"].dtype == "i2"
    assert decoded["uint64"].dtype == "u8"
    assert (len(decoded["rank_1"].shape), len(decoded["rank_5"].shape)) == (1, 5)


def test_new_stream():
    data = smooth((9, 11, 13), ">i4", scale=5000)
    data[:3, 4:8] = 2**31 - 1
    stream = encode(data, Settings(ratio=20, effort="fast", missing=2**31 - 1, experts=2))
    assert_same_parts(stream)
    reference = reference_decoder.decode(stream).array
    assert_agrees(stream, decode(stream), reference)
    assert psnr(np.where(data == 2**31 - 1, np.nan, data), reference) > 20
