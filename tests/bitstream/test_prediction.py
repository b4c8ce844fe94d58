"""Predicted integers: compiled code reads what plain Python wrote, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.lattice import arrange
from moec_zarr.bitstream.prediction import Predictor, decode_predicted, encode_predicted
from moec_zarr.config import config

SHAPES = [(300,), (9, 30), (4, 7, 11), (3, 2, 4, 9)]
LEAST = np.iinfo(np.int64).min
PREDICTORS = [
    Predictor((700, 300), 3),
    Predictor((1024, -100), -5, common=2),
    Predictor((512, 512), 0, common=0, blank=True),
]


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Integers, Bools]:
    """Return integers of which many repeat, and which of them are coded."""
    values = rng.integers(-2, 3, shape) * rng.integers(0, 2, shape)
    values[..., shape[-1] // 2 :] *= rng.integers(0, 90, shape[-1] - shape[-1] // 2)
    return values.astype(np.int64), rng.random(shape) < 0.9


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("peaks", [[], [2**31], [-(2**31)], [2**62]])
def test_compiled_code_decodes_what_plain_python_encoded(
    shape: tuple[int, ...], predictor: Predictor, peaks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values, valid = _field(shape, np.random.default_rng(len(shape)))
    valid.flat[-40:-30] = True
    values.flat[-40 : -40 + len(peaks)] = peaks
    with config.set(compiled=False):
        coded = encode_predicted(*arrange(values, valid), predictor)
    assert coded is not None
    monkeypatch.setattr("moec_zarr.bitstream.prediction.is_compiled", lambda size: True)
    assert encode_predicted(*arrange(values, valid), predictor) == coded
    decoded = decode_predicted(coded, shape, valid)
    np.testing.assert_array_equal(decoded, np.where(valid, values, 0))


def test_integers_repeat_in_wavefronts_longer_than_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = 40, 40, 60
    steps = np.add.outer(np.add.outer(np.arange(40) // 9, np.arange(40) // 7), np.arange(60) // 5)
    values = steps.astype(np.int64) + (np.random.default_rng(0).random(shape) < 0.05)
    monkeypatch.setattr("moec_zarr.bitstream.prediction.is_compiled", lambda size: True)
    for predictor in PREDICTORS:
        coded = encode_predicted(*arrange(values, None), predictor)
        assert coded is not None
        np.testing.assert_array_equal(decode_predicted(coded, shape, None), values)


def test_the_least_integer_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = LEAST + np.random.default_rng(0).integers(0, 2, (5, 6, 7))
    monkeypatch.setattr("moec_zarr.bitstream.prediction.is_compiled", lambda size: True)
    coded = encode_predicted(*arrange(values, None), Predictor((1024,), LEAST // 2, common=LEAST))
    assert coded is not None
    np.testing.assert_array_equal(decode_predicted(coded, values.shape, None), values)
