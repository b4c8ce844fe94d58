"""The parameters of the codec: what is accepted, and how they are stored."""

import math

import numpy as np
import pytest

from moec_zarr import MoECError
from moec_zarr.settings import Settings


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"ratio": 10, "psnr": 40},
        {"ratio": 10, "max_error": 1},
        {"ratio": 10, "psnr": 40, "max_error": 1},
        {"max_error": -1},
        {"max_error": math.inf},
        {"max_error": math.nan},
        {"ratio": 0.5},
        {"ratio": math.inf},
        {"ratio": math.nan},
        {"ratio": "10"},
        {"ratio": True},
        {"psnr": -1},
        {"psnr": 40, "missing": math.nan},
        {"psnr": 40, "missing": "none"},
        {"psnr": 40, "effort": "slow"},
        {"psnr": 40, "experts": 0},
        {"psnr": 40, "experts": 2.5},
        {"psnr": 40, "seed": -1},
        {"psnr": 40, "seed": None},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(parameters):
    with pytest.raises(MoECError, match="got"):
        Settings(**parameters)


def test_configuration_has_plain_types():
    asked = Settings(psnr=np.float32(40), missing=np.int8(-1), seed=np.uint8(3), experts=np.int64(2))
    stored = asked.configuration()
    assert stored == {"psnr": 40, "missing": -1, "seed": 3, "experts": 2}
    assert {type(value) for value in stored.values()} <= {int, float}
    assert Settings.from_configuration(stored) == asked
    with pytest.raises(MoECError, match=r"'max_eror'.*upgrade"):
        Settings.from_configuration({"ratio": 10, "max_eror": 1})
