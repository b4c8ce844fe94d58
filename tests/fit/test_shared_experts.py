"""Linear experts fitted to several fields, and the choice between these and a chunk's own."""

from __future__ import annotations

import numpy as np
import pytest

from moec_zarr.bitstream.linear_experts import read_linear_experts
from moec_zarr.dictionary import Dictionary, Entry
from moec_zarr.fit.advice import Advice, read_advice
from moec_zarr.fit.transform.expert_fit import fit_experts
from moec_zarr.fit.transform.expert_sample import draw_sample
from moec_zarr.fit.transform.restoration import choose_experts, restore_within
from moec_zarr.fit.transform.shared_experts import fit_shared_experts
from moec_zarr.model.linear_experts import restore_whole

SHAPE = (64, 80)
BYTES = 400  # that a transform is said to take


def field(number):
    """A disc somewhere, and what a filter has left of it."""
    rng = np.random.default_rng(number)
    y, x = np.indices(SHAPE)
    distance = np.hypot(y - rng.uniform(20, 44), x - rng.uniform(25, 55)) - rng.uniform(10, 18)
    target = np.clip(np.where(distance < 0, 0.6, -0.4) + 0.1 * np.sin(x / 9), -1, 1).astype("f4")
    return target, blurred(target)


def blurred(target, kept=14):
    spectrum = np.fft.fft2(target)
    low = np.abs(np.fft.fftfreq(SHAPE[0])[:, None]) * SHAPE[0] < kept
    low = low & (np.abs(np.fft.fftfreq(SHAPE[1])) * SHAPE[1] < kept)
    return np.fft.ifft2(spectrum * low).real.astype("f4")


def error(values, target):
    return np.square(np.clip(values, -1, 1).astype("f8") - target).mean()


FIELDS = [field(number) for number in range(8)]


@pytest.fixture(scope="module")
def fitted():
    samples = [draw_sample(values, target, None) for target, values in FIELDS[:6]]
    return fit_shared_experts(samples, 2)


def dictionary(sets, own=None):
    return Dictionary.make([Entry(10, each.payload) for each in sets], Advice(own_experts=own).write())


def test_they_restore_fields_that_they_were_not_fitted_to(fitted):
    sets, gain = fitted
    assert 1 <= len(sets) <= 4
    gains = []
    for target, values in FIELDS[6:]:
        left = min(error(restore_whole(values, each.experts), target) for each in sets)
        gains.append(10 * np.log10(error(values, target) / left))
    assert min(gains) > 1
    assert gain == pytest.approx(np.mean(gains), abs=1)  # as the training foretells
    for each in sets:
        read = read_linear_experts(each.payload, 2)
        np.testing.assert_array_equal(read.taps, each.experts.taps)


def test_two_fields_are_too_few():
    samples = [draw_sample(values, target, None) for target, values in FIELDS[:2]]
    assert fit_shared_experts(samples, 2) == ([], 0.0)


def test_errors_that_nothing_foretells_gain_nothing():
    rng = np.random.default_rng(0)
    samples = []
    for target, values in FIELDS[:5]:
        samples.append(draw_sample(values, values + rng.normal(0, 0.1, target.shape).astype("f4"), None))
    assert fit_shared_experts(samples, 2)[1] < 0.02


def test_a_chunk_takes_those_of_the_dictionary_where_they_do_better(fitted):
    target, values = FIELDS[7]
    shared = dictionary(fitted[0])
    found = choose_experts(values, target, None, BYTES, shared=shared)
    assert found.is_shared
    read = read_linear_experts(shared.entries[found.entry].data, 2)
    np.testing.assert_array_equal(read.taps, found.experts.taps)
    assert found.payload == b""
    assert found.nbytes < 8
    own = fit_experts(values, target, None, BYTES)
    assert own is None or found.net < own.net
    # Bytes that are left are too few for its own, but not for an entry.
    assert choose_experts(values, target, None, BYTES, 6, shared).is_shared
    assert choose_experts(values, target, None, BYTES, 4, shared) is None
    other = -target[::-1], np.abs(values[::-1]) - 1
    known = choose_experts(other[1], other[0], None, 10**5, shared=dictionary(fitted[0]))
    assert known is None or not known.is_shared


def test_a_chunk_fits_none_of_its_own_where_training_says_that_this_gains_nothing():
    target, values = FIELDS[7]
    assert choose_experts(values, target, None, 10**5) is not None
    assert choose_experts(values, target, None, 10**5, shared=dictionary([], own=5.0)) is not None
    assert choose_experts(values, target, None, 10**5, shared=dictionary([], own=0.0)) is None


@pytest.mark.parametrize("own", [None, 0.0, 1.25])
def test_advice_of_other_versions_is_read_as_far_as_it_is_known(own):
    advice = Advice(fits_won=True, step=4.0, own_experts=own)
    written = advice.write()
    assert read_advice(Dictionary.make([], written)) == advice
    assert read_advice(Dictionary.make([], written + b"more")) == advice
    assert read_advice(Dictionary.make([], written[:2])) == Advice(fits_won=True, step=4.0)
    assert read_advice(Dictionary.make([], written[:1])) == Advice()


@pytest.mark.parametrize("own", [12.75, 30.0, np.inf])
def test_a_gain_that_is_too_large_to_be_written_is_written_as_the_largest(own):
    assert read_advice(Dictionary.make([], Advice(own_experts=own).write())).own_experts == 12.7


def test_experts_for_other_axes_are_left_alone(fitted):
    rng = np.random.default_rng(0)
    target = rng.normal(0, 0.3, (12, 12, 12)).astype("f4")
    found = choose_experts(0.5 * target, target, None, BYTES, shared=dictionary(fitted[0]))
    assert found is None or not found.is_shared


def test_the_mean_is_right_with_those_of_a_dictionary(fitted):
    target, values = FIELDS[6]
    values = (values - 0.004).astype("f4")  # what no expert knows of
    shared = dictionary(fitted[0])
    restored = restore_within(values, target, None, -1.0, BYTES, shared=shared)
    found = restored.restoration
    assert found.is_shared
    assert len(found.payload) <= 1
    entry = shared.entries[found.entry].data
    read = read_linear_experts(entry + found.payload, 2, taken=len(entry))
    assert read.shift == found.experts.shift
    again = restore_whole(values, read)
    np.testing.assert_allclose(again, restored.values, atol=1e-5)
    bias = abs((np.clip(again, -1, 1).astype("f8") - target).mean())
    assert bias <= max(abs((np.clip(values, -1, 1).astype("f8") - target).mean()), 1e-3) + 1e-5


@pytest.mark.parametrize("shape", [(2, 7, 5, 9), (40, 31), (200, 400)], ids=str)
def test_a_sample_reads_what_stands_beside_its_voxels(shape):
    values = np.random.default_rng(0).normal(size=shape).astype("f4")
    number = np.arange(values.size, dtype="f4").reshape(shape)  # the target, which says where a voxel stands
    sample = draw_sample(values, number, None)
    voxels = sample.wanted.astype(int)
    wide, inner = np.pad(values.astype("f8"), 2, mode="edge"), (slice(2, -2),) * len(shape)
    steepness = np.zeros(shape)
    for axis in range(len(shape)):
        far_before, before, after, far = (
            wide[
                tuple(slice(2 + d * (own == axis), n + 2 + d * (own == axis)) for own, n in enumerate(shape))
            ]
            for d in (-2, -1, 1, 2)
        )
        np.testing.assert_array_equal(sample.bends[2 * axis], (after + before - 2 * wide[inner]).flat[voxels])
        np.testing.assert_array_equal(
            sample.bends[2 * axis + 1], (far + far_before - 2 * wide[inner]).flat[voxels]
        )
        steepness += abs(after - before)
    np.testing.assert_allclose(sample.steepness, steepness.flat[voxels], rtol=1e-12)
    np.testing.assert_array_equal(sample.values, values.flat[voxels])
    assert len(np.unique(voxels)) == len(voxels)
    assert sample.weights.sum() == pytest.approx(min(values.size, 1 << 15), rel=0.1)
