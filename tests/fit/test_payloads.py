"""What the fit writes: the best distributions, and what cannot be written."""

import numpy as np
import pytest
from scipy import stats

from moec_zarr.bitstream.contexts import Context
from moec_zarr.bitstream.network import read_network
from moec_zarr.bitstream.range_coder import encode_groups
from moec_zarr.fit.payloads import DoesNotFit, choose_distribution, encode_coefficients, encode_network
from moec_zarr.model.basis import AxisBasis
from moec_zarr.model.coefficients import Coefficients
from tests.support.strategies import COSINES, random_network

NARROWEST = Context((0,) * 6, floor=0, rise=0, power=0, offset=0, slope=0)


@pytest.mark.parametrize("deviation", [0.4, 3, 60, 3000])
@pytest.mark.parametrize("kind", ["normal", "laplace", "logistic"])
def test_size_is_close_to_the_entropy(kind, deviation):
    rng = np.random.default_rng(7)
    draw = getattr(rng, kind)(size=5000)
    values = np.clip(np.rint(draw / draw.std() * deviation), -32767, 32767).astype(np.int64)
    # What a coder that knows the distribution pays: its probability of each bin of width one.
    width = draw.std() / deviation
    law = {"normal": stats.norm, "laplace": stats.laplace, "logistic": stats.logistic}[kind]
    ideal = -np.log2(law.cdf((values + 0.5) * width) - law.cdf((values - 0.5) * width)).sum() / 8
    assert len(encode_groups([values], [choose_distribution(values)])) <= 1.02 * ideal + 8


def test_best_distribution_is_hardly_beaten_by_any():
    rng = np.random.default_rng(0)
    for values in rng.integers(-3, 4, 300), np.rint(rng.laplace(0, 20, 300)), rng.normal(0, 90, 300) // 1:
        integers = values.astype(np.int64)
        sizes = [len(encode_groups([integers], [code])) for code in range(256)]
        assert sizes[choose_distribution(integers)] <= 1.02 * min(sizes)


def test_distribution_of_zeros():
    assert choose_distribution(np.zeros(9, np.int32)) == 0
    assert choose_distribution(np.zeros(0, np.int32)) == 0


def test_integers_too_large_do_not_fit():
    with pytest.raises(DoesNotFit, match="32768"):
        choose_distribution(np.array([1, -(2**15)]))
    network = random_network(2, experts=1)
    network.integers["decoder.weight"][0] = 2**15
    with pytest.raises(DoesNotFit, match="32768"):
        encode_network(network)


def test_coefficients_too_large_do_not_fit():
    coefficients = Coefficients((9,), (COSINES,), 1.0, np.array([2**23], np.int32))
    with pytest.raises(DoesNotFit, match="8388608"):
        encode_coefficients(coefficients, Context((1, 1, 1), 0, 0, 9, 0, 0))


def test_coefficients_that_a_decoder_would_refuse_do_not_fit():
    """Zeros of the narrowest distribution take next to no bytes."""
    shape = (2048, 2048)
    integers = np.zeros(shape, np.int32)
    integers[-1, -1] = 1
    with pytest.raises(DoesNotFit, match="too many"):
        encode_coefficients(Coefficients(shape, (AxisBasis(1),) * 2, 0.5, integers), NARROWEST)


def test_network_payload_round_trip():
    network = random_network(3, experts=2)
    result = read_network(encode_network(network), 3, False)
    for name, integers in network.integers.items():
        np.testing.assert_array_equal(result.integers[name], integers)
