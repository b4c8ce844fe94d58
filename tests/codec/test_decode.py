"""Decoding: backends, selections, and what it needs to be installed."""

import numpy as np
import pytest

from moec_zarr import MoECError, config
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.codec.conftest import SHAPE
from tests.support.fields import assert_near, smooth
from tests.support.fits import fast
from tests.support.processes import run_python


def test_torch_decodes_the_same(stored):
    _, stream = stored
    decoded = decode(stream)
    points = tuple(np.random.default_rng(0).integers(0, n, 40) for n in SHAPE)
    with config.set(decoder="torch", batch=100):
        assert_near(decode(stream), decoded)
        assert_near(decode(stream, points), decoded[points])
    with config.set(batch=17):
        assert_near(decode(stream), decoded)
    with config.set(decoder="abacus"), pytest.raises(MoECError, match=r"'numpy' or 'torch'.*'abacus'"):
        decode(stream)


def test_another_shape_is_refused(stored):
    _, stream = stored
    with pytest.raises(MoECError, match=r"\(8, 9, 10\).*\(8, 9, 11\)"):
        decode(stream, shape=(8, 9, 11))


def test_an_axis_of_one_can_be_taken_twice():
    array = smooth((1, 20, 30))
    stream = encode(array, Settings(**fast(array)))
    grid = np.ix_([0, 0, 0], np.arange(20), np.arange(30))
    assert_near(decode(stream, grid), decode(stream)[grid])


def test_decoding_needs_no_torch():
    code = """
import sys
sys.modules.update(dict.fromkeys(["numba", "torch", "scipy", "rich"]))  # an import of them now fails
import numpy as np
from tests.conformance.freeze_streams import FEATURES, paths
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
for feature in FEATURES:
    path, values = paths(feature)
    expected = np.load(values)["expected"].astype("f8")
    np.testing.assert_allclose(decode(path.read_bytes()).astype("f8"), expected, rtol=1e-4, atol=1)
assert decode(encode(np.ones(9), Settings(ratio=1))).sum() == 9  # constant arrays need no fit
try:
    encode(np.random.rand(20, 20, 20), Settings(ratio=20))
except ImportError as error:
    print("moec-zarr[encode]" in str(error))
"""
    assert run_python(code) == ["True"]


def test_what_cannot_be_encoded_is_refused_before_any_fit():
    code = """
import sys
import numpy as np
from moec_zarr import MoECError
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
array = np.random.default_rng(0).random((9, 9, 9)).astype("f4")
for bad, settings in [
    (array[:3, :3], {"ratio": 50}),
    (array, {"ratio": 10, "experts": 256}),
    (array.astype(bool), {"ratio": 10}),
    (array.astype(complex), {"ratio": 10}),
    (array[None, None, None], {"ratio": 10}),
    (array.astype("i2"), {"ratio": 10, "missing": 0.5}),
    (array.astype("i2"), {"ratio": 10, "missing": 2**15}),
    (array.astype("f2"), {"ratio": 10, "missing": 1e6}),
]:
    try:
        encode(bad, Settings(**settings))
    except MoECError as error:
        print(type(error).__name__, "torch" in sys.modules)
"""
    words = run_python(code)
    assert words[::2] == ["BudgetError"] * 2 + ["UnsupportedArrayError"] * 6
    assert set(words[1::2]) == {"False"}


def test_an_absent_device_is_refused():
    array = smooth(SHAPE)
    with config.set(device="abacus"), pytest.raises(MoECError, match="device is 'abacus'"):
        encode(array, Settings(**fast(array, experts=1)))
