"""A sentinel within the range of the valid values: nothing decodes to it but what was it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr import MoECCodec, config, inspect
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.model.normalisation import Normalisation, neighbours
from tests.conformance import reference_decoder
from tests.support.decoders import assert_agrees

SHAPE = (6, 10, 12)
TARGETS = ({"ratio": None}, {"psnr": 20}, {"max_error": 2.0}, {"max_error": 1.0})
DECODERS = ["numpy", pytest.param("torch", marks=pytest.mark.torch)]


def field(dtype: str, missing: float) -> NDArray[Any]:
    """Values around the sentinel, many of them its neighbours, none of them equal to it."""
    rng = np.random.default_rng(1)
    whole = np.indices(SHAPE).sum(0) * 0.4 - 6 + rng.normal(0, 1, SHAPE)
    own = np.dtype(dtype)
    array = (np.rint(whole) + missing if own.kind in "iu" else whole + missing).astype(own)
    if own.kind in "iu" and int(missing) - 20 < np.iinfo(own).min:
        array = np.abs(whole + missing).astype(own)
    side = rng.integers(0, 2, SHAPE).astype(bool)
    smaller, larger = neighbours(own.newbyteorder("=").type(missing))
    return np.where(array == own.type(missing), np.where(side, larger, smaller), array).astype(own)


def reads(codec: MoECCodec, stream: bytes) -> list[NDArray[Any]]:
    """Whole, and put together from parts."""
    from moec_zarr.codec.decode import decode

    parts = [decode(stream, (slice(i, i + 1), slice(None, None, 1))) for i in range(SHAPE[0])]
    points = decode(stream, tuple(i.ravel() for i in np.indices(SHAPE))).reshape(SHAPE)
    return [codec.decode(stream), np.concatenate(parts), points]


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u2", "i4", "u4", "i8", ">u8", "f2", "f4", ">f8"])
def test_nothing_becomes_the_sentinel(dtype, decoder):
    missing = 7 if dtype != "f4" else 0  # the smallest numbers of all are its neighbours
    array = field(dtype, missing)
    assert not (array == missing).any()
    assert array.min() < missing < array.max()
    there = array.copy()
    there[1:3, 2:5, 3:6] = missing
    for original in (array, there):
        at = original == missing
        for target in TARGETS:
            target = target if "ratio" not in target else {"ratio": array.nbytes / 300}
            codec = MoECCodec(effort="fast", missing=missing, **target)
            stream = codec.encode(original)
            assert inspect(stream).kind == "transform", target
            with config.set(decoder=decoder):
                decoded = reads(codec, stream)
            expected = reference_decoder.decode(stream).array
            for found in (*decoded, expected):
                np.testing.assert_array_equal(found == missing, at)
                error = np.abs(found.astype("f8") - original.astype("f8"))
                assert error.max() <= target.get("max_error", np.inf)
            assert_agrees(stream, decoded[0], expected)


@pytest.mark.parametrize(("dtype", "missing"), [("u1", 0), ("u1", 255), ("i2", -(2**15)), ("f4", 3e38)])
def test_a_sentinel_beside_the_range_takes_no_bytes(dtype, missing):
    array = (np.indices(SHAPE).sum(0) + 1).astype(dtype)
    stream = MoECCodec(effort="fast", max_error=1, missing=missing).encode(array)
    assert "mask" not in inspect(stream).sections
    assert not (MoECCodec(ratio=1).decode(stream) == missing).any()


def test_a_sentinel_that_stands_nowhere_takes_few_bytes():
    array = field("f4", 7)
    with_it, without = (
        MoECCodec(effort="fast", psnr=30, missing=missing).encode(array) for missing in (7, None)
    )
    assert inspect(with_it).sections["mask"] <= 10
    assert len(with_it) <= len(without) + 16
    (masked,) = open_stream(with_it).masked_values
    assert masked.value == 7
    assert not masked.mask.any()


@pytest.mark.parametrize("dtype", ["u1", "i4", "f2", "f4", "f8", "i8", "u8"])
def test_a_value_steps_to_its_own_side(dtype):
    """The restored value is the nearest other one, and never falls where the fitted value rises."""
    own = np.dtype(dtype)
    low, high, missing = own.type(1), own.type(11), own.type(5)
    values = np.linspace(-1, 1, 2001)
    values = np.append(values, np.linspace(-1e-8, 1e-8, 101) - 0.2).astype(np.float64)
    values.sort()
    normalisation = Normalisation.of_range(low, high)
    plain = normalisation.restore(values, own, low, high)
    found = normalisation.restore(values, own, low, high, missing)
    taken = plain == missing
    assert taken.any()
    np.testing.assert_array_equal(found[~taken], plain[~taken])
    exact = 6 + 5 * values[taken]
    smaller, larger = neighbours(missing)
    np.testing.assert_array_equal(found[taken], np.where(exact < 5, smaller, larger))
    assert (np.diff(found.astype("f8")) >= 0).all()
    assert larger - missing == missing - smaller == (1 if own.kind in "iu" else np.spacing(missing))
