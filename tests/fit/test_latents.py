"""Bases, the coding of latents and their fit, each against something that owes nothing to it."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from tests.conformance import reference_decoder
from tests.support.decoders import both
from tests.support.fields import smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.fft import dctn, idct, idctn

from moec_zarr.bitstream.range_coder import CLASSES, ClassDecoder, class_frequencies, encode_classes
from moec_zarr.bitstream.values import read_latents, write_latents
from moec_zarr.demo.simulate import simulate
from moec_zarr.fit import rdoq as rdo
from moec_zarr.fit.basis_search import near, options, promising
from moec_zarr.fit.context_fit import ContextFit
from moec_zarr.fit.rdoq import fit_latents, has_bases
from moec_zarr.model.basis import (
    LARGEST_WEIGHT,
    LONGEST,
    LONGEST_BENT,
    TAPS,
    Kind,
    analysis,
    bases_of,
    basis,
    edge_weights,
    most_halvings,
)
from moec_zarr.model.coefficients import Context, Latents, fronts, present_bands
from moec_zarr.model.features import Look, Synthesis
from moec_zarr.model.transform import coefficients

LENGTHS = [*range(1, 41), 91, 271]
SMALL = settings(max_examples=60, deadline=None)
COSINES = Kind()


def wavelets(length):
    """That halve an axis until no more than eight positions are left."""
    return Kind(max(0, int(np.ceil(np.log2(length / 8)))))


def bent(length, seed=0):
    """Cosines whose edges differ."""
    rng = np.random.default_rng(seed)
    while not (weights := edge_weights(rng.lognormal(0, 0.7, length - 1))):
        pass
    return Kind(weights=weights)


def any_kinds(shape, rng):
    """Bases at random; some of wavelets nested."""
    kinds = []
    for n in shape:
        choice = rng.integers(3)
        halvings = int(rng.integers(1, most_halvings(n) + 1))
        bends = 3 <= n <= LONGEST_BENT and choice == 1
        kinds.append(bent(n, rng.integers(99)) if bends else Kind(halvings if choice else 0))
    halved = [axis for axis, kind in enumerate(kinds) if kind.halvings]
    if len(halved) > 1 and rng.random() < 0.6:
        for axis in rng.permutation(halved)[: rng.integers(2, len(halved) + 1)]:
            kinds[axis] = replace(kinds[axis], nested=True)
    return tuple(kinds)


# ---------------------------------------------------------------------------------- bases


@pytest.mark.parametrize("length", LENGTHS)
def test_cosines_are_those_of_the_dct(length):
    expected = idct(np.eye(length), axis=0, norm="ortho")
    np.testing.assert_allclose(basis(COSINES, length).synthesis, expected, atol=1e-6)


@pytest.mark.parametrize("length", [3, 5, 16, 31, LONGEST_BENT])
def test_bent_cosines_are_those_of_the_page(length):
    kind = bent(length)
    expected = reference_decoder.cosines(length, list(kind.weights)).functions
    np.testing.assert_allclose(basis(kind, length).synthesis, expected, atol=1e-6)
    # As a cosine does, function k changes its sign k times.
    for k, wave in enumerate(expected.T):
        loud = wave[np.abs(wave) > 1e-9]
        assert (np.diff(np.sign(loud)) != 0).sum() == k or len(loud) < length


def test_cosines_bend_where_neighbours_differ_more():
    """Where levels 0..7 and 8..15 of an axis have little in common, its slow waves are steps."""
    assert edge_weights(np.ones(15)) == ()
    differences = np.ones(15)
    differences[7] = 1000.0
    weights = edge_weights(differences)
    assert max(weights) <= LARGEST_WEIGHT
    assert min(weights) == weights[7]
    step = basis(Kind(weights=weights), 16).synthesis[:, 1]
    np.testing.assert_allclose(np.abs(step), 0.25, atol=0.07)
    assert len(set(np.sign(step[:8]))) == len(set(np.sign(step[8:]))) == 1


def test_waves_that_hang_on_rounding_are_not_made():
    """Two halves that hardly touch, and are alike: their waves come in pairs of any mixture."""
    differences = np.ones(63)
    differences[31] = 1e30
    weights = edge_weights(differences)
    assert weights
    values = np.linalg.eigvalsh(laplacian(weights))
    assert np.diff(values).min() > 1e-7 * values[-1]


def laplacian(weights):
    matrix = np.zeros((len(weights) + 1,) * 2)
    for i, weight in enumerate(weights):
        matrix[i : i + 2, i : i + 2] += 2 ** (weight / 2) * np.array([[1, -1], [-1, 1]])
    return matrix


@pytest.mark.parametrize("halvings", [1, 2, 5])
@pytest.mark.parametrize("length", [length for length in LENGTHS if length > 16])
def test_wavelets_are_those_of_the_page(length, halvings):
    """Made there from inverse lifting steps."""
    np.testing.assert_allclose(
        basis(Kind(halvings), length).synthesis, reference_decoder.wavelets(length, halvings).functions, atol=1e-6
    )


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["cosines", "wavelets", "bent"])
def test_a_basis(name, length):
    kind = {"cosines": COSINES, "wavelets": wavelets(length), "bent": COSINES}[name]
    if name == "bent" and 3 <= length <= LONGEST_BENT:
        kind = bent(length)
    found, inverse = basis(kind, length), analysis(kind, length)
    assert found.synthesis.dtype == inverse.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.synthesis.astype("f8"), axis=0), 1, atol=2e-6)
    np.testing.assert_allclose(inverse @ found.synthesis, np.eye(length), atol=1e-5)
    data = np.random.default_rng(length).normal(size=(length, 5)).astype("f4")
    np.testing.assert_allclose(found.synthesis @ (inverse @ data), data, atol=2e-5)
    assert found.bands[0] == 0
    assert set(np.diff(found.bands)) <= {0, 1}
    assert found.prefix(int(found.bands[-1])) == length
    assert found.taps.shape == (TAPS, length)
    assert (found.taps >= -1).all()
    assert (found.taps < np.arange(length)).all()
    other = reference_decoder.wavelets(length, kind.halvings) if kind.halvings else reference_decoder.cosines(length)
    assert found.bands.tolist() == other.bands
    taps = [[-1 if tap is None else tap for tap in each] for each in other.taps]
    assert found.taps.T.tolist() == taps


@pytest.mark.parametrize("length", LENGTHS)
def test_a_constant_has_no_details(length):
    found = basis(wavelets(length), length)
    coefficients = analysis(wavelets(length), length) @ np.ones(length, "f4")
    np.testing.assert_allclose(coefficients[found.bands > 0], 0, atol=1e-5)
    if length > 1:
        assert np.abs(analysis(COSINES, length) @ np.ones(length, "f4"))[1:].max() < 1e-5


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_polynomial_has_details_at_the_ends_alone(degree):
    """CDF 9/7 analysis has four vanishing moments."""
    found = basis(wavelets(91), 91)
    coefficients = analysis(wavelets(91), 91).astype("f8") @ np.linspace(-1, 1, 91) ** degree
    for band in range(found.bands[-1] - 1, found.bands[-1] + 1):
        inner = coefficients[found.bands == band][4:-4]
        assert inner.size
        np.testing.assert_allclose(inner, 0, atol=1e-5)


def test_wavelets_stand_along_the_axis():
    """The centre of gravity of each function rises within its band."""
    found = basis(wavelets(91), 91)
    centre = np.arange(91) @ np.square(found.synthesis)
    for band in range(found.bands[-1] + 1):
        assert (np.diff(centre[found.bands == band]) > 0).all()


# ------------------------------------------------------------------------- known classes


@pytest.mark.parametrize("largest", [1, 2, 7, 255])
def test_frequencies_of_the_classes(largest):
    found = class_frequencies(largest)
    assert found.shape == (CLASSES, largest + 1)
    assert (found > 0).all()
    assert (found[:, 0] + 2 * found[:, 1:].sum(axis=1) == 2**24).all()
    for number in range(CLASSES):
        table = reference_decoder.class_starts(largest, number)
        np.testing.assert_array_equal(np.diff(table)[largest:], found[number])
        scale = (4 + number % 4) * 2.0 ** (number // 4 - 7)
        m = np.arange(largest + 1)
        law = stats.laplace(scale=scale)
        mass = law.sf(m - 0.5) - law.sf(m + 0.5)
        mass[largest] = law.sf(largest - 0.5)  # with the tail
        # One of 2**24 for every symbol, and what is rounded away, which 0 gets.
        np.testing.assert_allclose(found[number] / 2**24, mass, rtol=0, atol=(2 * largest + 2) / 2**24)
        np.testing.assert_allclose(found[number, 1:] / 2**24, mass[1:], rtol=4e-5, atol=2.0**-23)


CODED = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(-300, 300)), min_size=1, max_size=80)


@SMALL
@given(CODED, st.integers(1, 255), st.integers(1, 80))
def test_integers_of_classes_come_back(coded, largest, first):
    classes, values = np.array(coded).T
    values = np.clip(values, -largest, largest)
    data = encode_classes(values, classes, largest)
    decoder = ClassDecoder(data, largest)
    parts = [decoder.decode(part) for part in np.split(classes, [min(first, len(classes) - 1)]) if len(part)]
    np.testing.assert_array_equal(np.concatenate(parts), values)
    coder = reference_decoder.Coder(data)
    for number, value in zip(classes.tolist(), values.tolist(), strict=True):
        assert coder.symbol(reference_decoder.class_starts(largest, number)) - largest == value


@pytest.mark.parametrize("number", [0, 13, 30, 45, 63])
def test_bytes_of_classes_are_close_to_the_entropy(number):
    scale = (4 + number % 4) * 2.0 ** (number // 4 - 7)
    values = np.rint(np.random.default_rng(0).laplace(scale=scale, size=10_000))
    values = np.clip(values, -255, 255).astype(np.int64)
    law = stats.laplace(scale=scale)
    mass = np.where(np.abs(values) < 255, law.cdf(values + 0.5) - law.cdf(values - 0.5), law.sf(254.5))
    data = encode_classes(values, np.full(values.size, number), 255)
    assert len(data) <= 1.01 * -np.log2(mass).sum() / 8 + 8


# --------------------------------------------------------------------------- coefficients


def context(axes, rng):
    """Any context."""
    return Context(
        tuple(rng.integers(0, 256, axes * TAPS).tolist()),
        int(rng.integers(-128, 128)),
        int(rng.integers(-128, 128)),
        int(rng.integers(0, 256)),
        int(rng.integers(-(2**15), 2**15)),
        int(rng.integers(-(2**15), 2**15)),
    )


def latents(shape, kinds, rng, largest=9):
    """Sparse latents at random, up to the highest band that they reach."""
    integers = (rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < 0.2)).astype(np.int32)
    integers.flat[rng.integers(integers.size)] = largest
    extent = [
        basis(kind, n).prefix(int(basis(kind, n).bands[max(i)]))
        for kind, n, i in zip(kinds, shape, np.nonzero(integers), strict=True)
    ]
    return Latents(shape, kinds, 0.25, context(len(shape), rng), integers[tuple(slice(n) for n in extent)])


def assert_come_back(given_latents):
    data = write_latents(given_latents)
    found = read_latents(data, given_latents.shape)
    assert (found.shape, found.kinds) == (given_latents.shape, given_latents.kinds)
    assert (found.step, found.context) == (given_latents.step, given_latents.context)
    np.testing.assert_array_equal(found.integers, given_latents.integers)
    other = reference_decoder.read_latents(data, given_latents.shape)
    assert other.step == found.step
    np.testing.assert_array_equal(other.present, present_bands(found.bases, found.integers))
    np.testing.assert_array_equal(
        other.integers[tuple(slice(n) for n in found.integers.shape)], found.integers
    )
    assert np.abs(other.integers).sum() == np.abs(found.integers).sum()


SHAPES = [(2,), (300,), (2, 3), (17, 20), (5, 9, 12), (3, 10, 2, 7), (2, 4, 3, 5, 9)]


@pytest.mark.parametrize("largest", [1, 9, 63, 64, 2**15 - 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_latents_come_back(shape, largest):
    rng = np.random.default_rng(largest)
    kinds = any_kinds(shape, rng)
    assert_come_back(latents(shape, kinds, rng, largest))


@SMALL
@given(st.lists(st.integers(2, 12), min_size=1, max_size=5), st.integers(0, 2**20), st.integers(1, 400))
def test_any_latents_come_back(shape, seed, largest):
    rng = np.random.default_rng(seed)
    shape = tuple(shape[: 5 if np.prod(shape) < 2000 else 3])
    kinds = any_kinds(shape, rng)
    assert_come_back(latents(shape, kinds, rng, largest))


@pytest.mark.parametrize("kind", [COSINES, Kind(2), Kind(3, nested=True)])
def test_a_fine_coefficient_alone_comes_back(kind):
    """No coefficient stands on the first fronts."""
    shape = (40, 20)
    integers = np.zeros(shape, np.int32)
    integers[-1, -1] = -3
    assert_come_back(Latents(shape, (kind, kind), 0.5, context(2, np.random.default_rng(0)), integers))


def test_latents_too_large_are_not_coded():
    integers = np.array([2**15], np.int32)
    with pytest.raises(OverflowError, match="32768"):
        write_latents(Latents((9,), (COSINES,), 1.0, Context((1, 1, 1), 0, 0, 9, 0, 0), integers))


def assert_read_alike(data, shape):
    """Both decoders find the same latents, or both refuse."""
    if found := both(lambda: read_latents(data, shape), lambda: reference_decoder.read_latents(data, shape)):
        ours, theirs = (latents.integers for latents in found)
        np.testing.assert_array_equal(ours, theirs[tuple(slice(n) for n in ours.shape)])


@SMALL
@given(st.binary(max_size=50), st.sampled_from([(3,), (2, 12), (4, 3, 2)]))
def test_any_bytes_are_latents_or_corrupt(tail, shape):
    """Random bytes behind a step and weights that are sound: for both decoders the same."""
    data = b"\0" * len(shape) + np.float32(0.5).tobytes() + bytes(range(3 * len(shape))) + tail
    assert_read_alike(data, shape)


@SMALL
@given(st.data(), st.sampled_from([(30,), (9, 12), (4, 3, 10)]))
def test_damaged_latents_are_latents_or_corrupt(data, shape):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kinds = any_kinds(shape, rng)
    coded = bytearray(write_latents(latents(shape, kinds, rng, data.draw(st.sampled_from([3, 700])))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(coded) - 1))
        coded[at] = data.draw(st.integers(0, 255))
    damaged = bytes(coded[: data.draw(st.integers(0, len(coded)))])
    assert_read_alike(damaged, shape)


def coded_as(rng, scale, taps, levels, rounds):
    """Bits of Laplace integers with a fitted context, over those with the scales that they are drawn with."""
    law = stats.laplace(scale=scale)
    magnitudes = np.abs(np.rint(law.rvs(random_state=rng))).astype(np.int64)
    fit = ContextFit(2)
    loud = (magnitudes > 0) | taps.any(axis=1)
    quiet = np.bincount(levels[~loud], minlength=levels.max() + 1)
    for _ in range(rounds):  # of a search
        found = fit(magnitudes[loud], taps[loud], levels[loud], quiet)
    number = found.classes(taps, levels)
    classes = stats.laplace(scale=(4 + number % 4) * 2.0 ** (number // 4 - 7))

    def bits(of):
        return -np.log2(of.cdf(magnitudes + 0.5) - of.cdf(magnitudes - 0.5)).sum()

    assert bits(classes) < 0.9 * bits(stats.laplace(scale=magnitudes.mean()))
    return bits(classes) / bits(law)


TAP_WEIGHTS = np.array([0.5, 0.2, 0.02, 0.3, 0.1, 0.02])


@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_a_fitted_context_codes_a_known_source_almost_as_well_as_its_law(scale):
    rng = np.random.default_rng(0)
    taps = rng.poisson(0.3, (40_000, 6)) * rng.integers(1, 4, (40_000, 6))
    levels = rng.integers(0, 4, len(taps))
    assert coded_as(rng, scale + (taps @ TAP_WEIGHTS) ** 0.9, taps, levels, rounds=5) < 1.03


@pytest.mark.parametrize("rise", [1.5, 2.5])
def test_a_rise_between_two_that_can_be_written_costs_little(rise):
    """Over fourteen levels, in eighths of an octave each: half a unit more is an octave at the last one."""
    rng = np.random.default_rng(0)
    taps = (rng.geometric(0.5, (40_000, 6)) - 1) * (rng.random((40_000, 6)) < 0.4)
    levels = rng.integers(0, 14, len(taps))
    ground = 2 ** (-rise / 8 * levels)
    assert coded_as(rng, 0.6 * (ground + taps @ TAP_WEIGHTS) ** 0.9, taps, levels, rounds=2) < 1.01


# --------------------------------------------------------------------------------- values


def any_looks(axes: int, rng: np.random.Generator) -> tuple[Look, ...]:
    return tuple(Look(int(rng.integers(1, 16)), int(rng.integers(4))) for _ in range(axes))


@pytest.mark.parametrize("shape", SHAPES)
def test_cosines_add_up_to_what_the_inverse_dct_does(shape):
    given_latents = latents(shape, (COSINES,) * len(shape), np.random.default_rng(1))
    whole = np.zeros(shape)
    whole[tuple(slice(n) for n in given_latents.integers.shape)] = given_latents.integers * given_latents.step
    found = Synthesis(given_latents).values([np.arange(n) for n in shape], False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, idctn(whole, norm="ortho"), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_channels_are_those_of_the_page(shape):
    rng = np.random.default_rng(2)
    kinds, looks = any_kinds(shape, rng), any_looks(len(shape), rng)
    given_latents = latents(shape, kinds, rng)
    synthesis = Synthesis(given_latents, looks)
    indices = [np.arange(n) for n in shape]
    values, channels = synthesis.at(indices, False)
    np.testing.assert_array_equal(values, synthesis.values(indices, False))
    page = reference_decoder.read_latents(write_latents(given_latents), shape)
    np.testing.assert_allclose(values.ravel(), page.values(), atol=1e-5)
    read = page.channels([look.distance + 16 * look.gain for look in looks])
    np.testing.assert_allclose(channels, read, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_those_of_the_grid(shape):
    rng = np.random.default_rng(3)
    kinds = any_kinds(shape, rng)
    synthesis = Synthesis(latents(shape, kinds, rng), any_looks(len(shape), rng))
    points = [rng.integers(0, n, 50) for n in shape]
    values, channels = synthesis.at([np.arange(n) for n in shape], False)
    some, read = synthesis.at(points, True)
    np.testing.assert_allclose(some, values[tuple(points)], atol=1e-5)
    channels = channels.reshape(*shape, -1)
    np.testing.assert_allclose(read, channels[tuple(points)], atol=1e-4)
    np.testing.assert_allclose(synthesis.values(points, True), some, atol=1e-6)
    part = [np.arange(n)[:: -2 if n > 2 else 1] for n in shape]
    strided, read = synthesis.at(part, False)
    np.testing.assert_allclose(strided, values[np.ix_(*part)], atol=1e-5)
    np.testing.assert_allclose(read.reshape(*strided.shape, -1), channels[np.ix_(*part)], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_are_those_that_add_up_to_an_array(shape):
    rng = np.random.default_rng(4)
    data = rng.normal(size=shape).astype(np.float32)
    for _ in range(5):
        kinds = any_kinds(shape, rng)
        whole = Latents(shape, kinds, 1.0, context(len(shape), rng), np.zeros(shape, np.int32))
        object.__setattr__(whole, "integers", coefficients(data, kinds))  # not rounded
        np.testing.assert_allclose(Synthesis(whole).whole(), data, atol=1e-4)


def test_a_mean_alone_makes_channels_that_are_finite():
    integers = np.ones((1, 1), np.int32)
    alone = Latents((5, 9), (COSINES,) * 2, 2.0, Context((1,) * 6, 0, 0, 9, 0, 0), integers)
    values, channels = Synthesis(alone, [Look(1, 15)] * 2).at([np.arange(5), np.arange(9)], False)
    np.testing.assert_allclose(values, 2 / np.sqrt(45), rtol=1e-5)
    np.testing.assert_allclose(channels[:, 0], 2 / np.sqrt(45), rtol=1e-5)
    assert (channels[:, 1:] == 0).all()


# ------------------------------------------------------------------------------------ fit


@pytest.fixture(scope="module")
def field():
    """Simulated temperature, mapped to -1..1."""
    return mapped(simulate((3, 1, 32, 40), seed=2)["temperature"].values[:, 0])


def mapped(array):
    return ((array - array.min()) / np.ptp(array) * 2 - 1).astype(np.float32)


def size(found):
    return len(write_latents(found))


def decoded(found):
    return Synthesis(found).values([np.arange(n) for n in found.shape], False)


def mean_square(rest):
    return float(np.square(rest, dtype=np.float64).mean())


def uniform(array, budget):
    """Mean square error of an inverse DCT's coefficients in steps, deflated to so many bytes."""
    coefficients = dctn(array, norm="ortho")
    low, high = -16.0, 4.0
    for _ in range(30):
        middle = (low + high) / 2
        integers = np.rint(coefficients / 2**middle).astype("<i2")
        planes = integers.view(np.uint8).reshape(-1, 2).T.tobytes()
        low, high = (low, middle) if len(zlib.compress(planes, 9)) <= budget else (middle, high)
    return mean_square(idctn(np.rint(coefficients / 2**high) * 2**high, norm="ortho") - array)


def test_bases_are_those_that_data_are_made_of():
    """A few functions of some bases, of the noise of which nothing else is sparse."""
    shape, rng = (24, 40, 48), np.random.default_rng(0)
    for kinds in (
        (COSINES, Kind(3), Kind(3)),
        (COSINES, Kind(3, nested=True), Kind(3, nested=True)),
        (Kind(2, nested=True), Kind(3, nested=True), Kind(3, nested=True)),
    ):
        integers = np.zeros(shape, np.int32)
        integers.flat[rng.integers(integers.size // 3, size=200)] = 9
        made = Latents(shape, kinds, 0.1, context(3, rng), integers)
        array = Synthesis(made).whole()
        assert promising(array, 200, options(array))[0] == kinds


def test_bases_near_the_promising_are_found():
    """Of axes that are halved more often than those of any promising ones."""
    shape, rng = (20, 48, 48), np.random.default_rng(0)
    for kinds in (
        (Kind(3), Kind(6, nested=True), Kind(6, nested=True)),
        (Kind(4), Kind(5), Kind(5)),
    ):
        integers = np.zeros(shape, np.int32)
        integers.flat[rng.integers(integers.size // 3, size=200)] = 9
        integers[:3, :3, :3] = 9  # fewer halvings would spread these
        array = Synthesis(Latents(shape, kinds, 0.1, context(3, rng), integers)).whole()
        assert kinds not in promising(array, 227, options(array))
        found = fit_latents(array, None, size, 500, tries=40)
        assert found is not None
        assert found.kinds == kinds


def test_bases_near_others_differ_in_one_thing():
    rng = np.random.default_rng(0)
    shape = (9, 20, 33)
    whole = rng.normal(size=shape).astype("f4")
    for _ in range(30):
        kinds = any_kinds(shape, rng)
        for other in near(kinds, shape, options(whole)):
            assert other != kinds
            assert sum(kind.nested for kind in other) != 1
            assert all(0 <= kind.halvings <= most_halvings(n) for kind, n in zip(other, shape, strict=True))
            changed = [(a, b) for a, b in zip(kinds, other, strict=True) if a != b]
            together = all(a.nested and b.nested and abs(a.halvings - b.halvings) == 1 for a, b in changed)
            assert len(changed) == 1 or together


@pytest.mark.parametrize("budget", [100, 200, 400, 800, 1600])
def test_a_fit_keeps_its_budget_and_beats_uniform_steps(field, budget):
    found = fit_latents(field.copy(), None, size, budget)
    assert found is not None
    assert 0.9 * budget - 10 < size(found) <= budget
    assert mean_square(decoded(found) - field) < 0.7 * uniform(field, budget)
    np.testing.assert_array_equal(read_latents(write_latents(found), found.shape).integers, found.integers)


@pytest.mark.parametrize("shape", [(700,), (8, 9, 10), (48, 52, 44)])
def test_a_field_far_smoother_than_its_budget_has_latents(shape):
    target = mapped(smooth(shape))
    found = fit_latents(target.copy(), None, size, 300)
    assert found is not None
    assert size(found) <= 300
    assert mean_square(decoded(found) - target) < 1e-5


def test_a_budget_that_pays_for_nothing_has_no_latents(field):
    assert fit_latents(field.copy(), None, size, 12) is None
    assert fit_latents(np.zeros((9, 12), np.float32), None, size, 300) is None


def holes(shape, kind):
    valid = np.ones(shape, bool)
    if kind == "block":
        valid[:, 8:20, 10:24] = False
    elif kind == "edge":
        valid[..., : shape[-1] // 3] = False
    else:
        valid[np.random.default_rng(0).random(shape) < 0.3] = False
    return valid


@pytest.mark.parametrize("kind", ["block", "edge", "scattered"])
def test_voxels_that_do_not_count_cost_nothing(field, kind):
    valid = holes(field.shape, kind)
    whole = fit_latents(field.copy(), None, size, 500)
    target = np.where(valid, field, np.float32(0))
    found = fit_latents(target, valid, size, 500)
    assert whole is not None
    assert found is not None
    assert size(found) <= 500
    rest = mean_square((decoded(found) - field)[valid])
    assert rest < 10**0.1 * mean_square((decoded(whole) - field)[valid])  # one decibel


def test_a_fit_goes_on_from_another(field):
    """In the same bases, though there are better ones for this field, and within its own budget."""
    other = fit_latents(field.copy(), None, size, 500)
    assert other is not None
    like = replace(other, kinds=(COSINES, Kind(2), Kind(1)))
    found = fit_latents(field[:, ::-1].copy(), None, size, 400, like)
    assert found is not None
    assert found.kinds == like.kinds
    assert size(found) <= 400
    assert mean_square(decoded(found) - field[:, ::-1]) < 0.7 * uniform(field, 400)


def test_a_choice_counts_what_it_costs_others():
    """No coefficient is better at another choice, counted over all coefficients, the rest unchanged."""
    rng = np.random.default_rng(0)
    shape = (6, 7)
    kinds = (COSINES, COSINES)
    given_context = context(2, rng)
    order = fronts(bases_of(kinds, shape), kinds, np.ones((3, 3), bool))
    scaled = rng.exponential(0.8, order.where.size).astype(np.float32)
    before = np.floor(scaled + 0.3).astype(np.int64)
    rows = rdo._rows(order, np.ones(order.where.size, bool))
    taps = rdo._at_taps(before, order, rows)
    found = rdo._cheapest(scaled, before, taps, given_context, order, rows)
    frequencies = class_frequencies(60).astype(np.float64)

    def cost(magnitudes):
        whole = np.append(np.zeros(order.where.size, np.int64), 0)
        whole[order.where] = magnitudes
        classes = given_context.classes(whole[order.taps], order.levels())
        bits = 24 - np.log2(frequencies[classes, magnitudes])
        return np.square(scaled - magnitudes).sum() + rdo.RATE * bits.sum()

    for place, chosen in enumerate(found):
        costs = {}
        for choice in {0, max(round(float(scaled[place])) - 1, 0), round(float(scaled[place]))}:
            other = before.copy()
            other[place] = choice
            costs[choice] = cost(other)
        assert costs[int(chosen)] == pytest.approx(min(costs.values()), abs=1e-4)
    assert (found != before).any()


def test_an_axis_too_long_has_no_basis():
    assert has_bases((3, LONGEST))
    assert not has_bases((3, LONGEST + 1))
