"""Values that stand for missing ones without anybody having said so."""

import numpy as np
import pytest

from moec_zarr import MoECCodec, MoECError
from moec_zarr.fills import find_suspect
from tests.support.fields import REAL_FIELDS

SHAPE = (12, 32, 48)


def temperature(dtype="f4"):
    k, j, i = np.indices(SHAPE)
    return (285 + 15 * np.sin(i / 9 + k / 5) * np.cos(j / 7)).astype(dtype)


KNOWN = [
    9.969209968386869e36,
    1e20,
    9.999e20,
    1e15,
    -1e34,
    -9.99e8,
    -999,
    -9999,
    -32768,
    -3.4028234663852886e38,
]


@pytest.mark.parametrize("value", KNOWN)
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
@pytest.mark.parametrize("place", [np.s_[:, 5:15, 10:30], np.s_[3, 4, 5]], ids=["block", "once"])
def test_a_known_fill_value_is_found(value, dtype, place):
    array = temperature(dtype)
    array[place] = value
    suspect = find_suspect(array)
    assert suspect.is_known
    assert suspect.value == np.dtype(dtype).type(value)
    assert suspect.count == np.count_nonzero(array == suspect.value)
    assert 270 <= suspect.low < suspect.high <= 300


@pytest.mark.parametrize("value", [-32768, -32767, -9999, -999])
def test_integers_have_their_own(value):
    array = (10 * temperature()).astype("i2")
    assert find_suspect(array) is None
    array[:, 5:15] = value
    assert find_suspect(array).is_known


def test_a_float32_fill_that_was_widened_is_known():
    array = temperature("f8")
    array[0] = np.float32(1e20)
    assert array[0, 0, 0] != 1e20
    assert find_suspect(array).is_known


def test_one_fill_value_does_not_hide_another():
    array = temperature()
    array[:, :4], array[:, 4:8] = 1e20, -9999
    assert find_suspect(array).value == np.float32(1e20)
    assert find_suspect(array[:, 4:]).value == -9999
    array[:, :4] = 123456  # a peak that is not known
    assert find_suspect(array).value == -9999


@pytest.mark.parametrize("value", [0, -99, 999.9, 1e10])
def test_a_value_that_repeats_far_from_all_others_is_suspicious(value):
    array = temperature()
    array[:, 5:15, 10:30] = value
    suspect = find_suspect(array)
    assert not suspect.is_known
    assert suspect.count == 12 * 10 * 20
    assert np.dtype("f4").type(value) == suspect.value


def test_peaks_far_outside_the_bulk_are_suspicious():
    array = temperature()
    array[3, 4, 5:8] = 1e6, 1.1e6, 1.2e6
    assert find_suspect(array).value == np.float32(1.2e6)


def test_what_a_field_may_hold_is_not_suspicious():
    """Depths around -9999 m, zeros of rain, a clipped image, whole ranges of a dtype, classes."""
    random = np.random.default_rng(0)
    relief = random.uniform(-11000, 8000, SHAPE).astype("f4")
    relief[:4, :4] = -9999
    rain = np.maximum(random.normal(0, 1, SHAPE), 0) ** 3
    clipped = np.minimum(random.normal(200, 50, SHAPE), 255).astype("u1")
    audio = np.clip(random.normal(0, 20000, SHAPE), -32768, 32767).astype("i2")
    for array in (
        relief,
        rain,
        clipped,
        audio,
        np.array([0, 1], "u1"),
        np.zeros(3),
        np.zeros(0),
        np.full(4, np.nan),
    ):
        assert find_suspect(array) is None
    assert find_suspect(np.array([1.7e308, -1.7e308, 0, 1])) is None


def test_no_real_field_is_suspicious():
    paths = [*REAL_FIELDS.glob("*.npz"), *REAL_FIELDS.with_name("data-hard").glob("*.npz")]
    if not paths:
        pytest.skip("the real fields are not here")
    for path in paths:
        with np.load(path) as file:
            assert find_suspect(file["data"]) is None, path.stem


@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 60}, {"max_error": 0.1}])
def test_the_codec_refuses_what_it_would_spoil_and_names_the_remedy(target):
    array = temperature()
    array[:, 5:15, 10:30] = 1e20
    with pytest.raises(MoECError, match=r"values are 1e\+20, the missing value of CMIP.*missing=1e\+20\)"):
        MoECCodec(effort="fast", **target).encode(array)
    codec = MoECCodec(effort="fast", missing=1e20, **target)
    decoded = np.asarray(codec.decode(codec.encode(array))).reshape(SHAPE)
    sea = array == np.float32(1e20)
    np.testing.assert_array_equal(decoded == np.float32(1e20), sea)
    assert np.abs(decoded - array)[~sea].max() < 1


def test_what_is_stored_exactly_is_not_refused():
    array = temperature()
    array[0, 0, 0] = 1e20
    for codec in (MoECCodec(max_error=0), MoECCodec(ratio=1.01)):
        steps = np.round(array[:1])  # zlib makes it smaller than the ratio asks
        np.testing.assert_array_equal(codec.decode(codec.encode(steps)).reshape(steps.shape), steps)


def test_the_codec_warns_of_what_may_be_one(caplog):
    array = temperature()
    array[:, 5:15, 10:30] = -77.25
    MoECCodec(ratio=20, effort="fast").encode(array)
    assert "-77.25 stands far from all other values" in caplog.text
    assert "missing=-77.25" in caplog.text
