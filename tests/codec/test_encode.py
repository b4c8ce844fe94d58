import math
import os
import re
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.conformance import reference_decoder
from tests.support.fields import assert_near, psnr, smooth
from tests.conformance.freeze_streams import FEATURES, names
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moec_zarr import BudgetError, MoECError, UnsupportedArrayError, UnsupportedVersionError, config
from moec_zarr.codec.encode import decode, encode, open_stream
from moec_zarr.settings import Settings

DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
SHAPE = (8, 9, 10)
FLOOR = 15  # dB that the shortest fits reach on smooth fields
FIELDS = Path(__file__).parents[2] / "shared" / "data"


def target(array, stream_bytes=230, **others):
    """Settings for a stream of about so many bytes, whatever the dtype."""
    return Settings(ratio=array.nbytes / stream_bytes, effort="fast", **others)


@pytest.fixture(scope="module")
def stored():
    """A field, and its stream with two experts."""
    array = smooth(SHAPE)
    return array, encode(array, target(array, experts=2))


# ----------------------------------------------------------------------------- round trips


def laid_out(array, layout):
    """The same values at other places of memory."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":
        return np.repeat(array, 3, axis=-1)[..., ::3]
    if layout == "sliced":
        return np.pad(array, 2)[(slice(2, -2),) * array.ndim]
    return array


LAYOUTS = ["C", "F", "reversed", "transposed", "strided", "sliced"]
RANKED = [(700,), (26, 29), (7, 11, 9), (5, 3, 7, 8), (3, 4, 1, 7, 9)]


def scale_of(dtype):
    dtype = np.dtype(dtype)
    return 100.0 if dtype.kind == "f" else float(np.iinfo(dtype).max) * 0.9


def assert_quality_is_stored(array, stream, decoded):
    """The quality that the header names is what NumPy finds."""
    header = reference_decoder.decode(stream)
    inner = tuple(slice(n) for n in header.box)
    array, decoded = array[inner], decoded[inner]
    valid = np.isfinite(array)
    for _, mask in header.masks:
        valid &= ~mask
    wanted, got = array[valid].astype("f8"), decoded[valid].astype("f8")
    peak = np.ptp(wanted)
    assert (float(header.low), float(header.high)) == (wanted.min(), wanted.max())
    mean = np.mean((wanted - got) ** 2)
    if mean:
        found = 10 * math.log10(peak**2 / mean)
        assert header.psnr - 1e-3 <= found <= header.psnr + 0.011
    else:
        assert header.psnr == math.inf
    error = np.abs(wanted - got).max() / peak
    assert error * (1 - 1e-9) <= header.error <= error * (1 + 2**-7) + 1e-9


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    st.sampled_from(DTYPES), st.sampled_from("<>"), st.sampled_from(RANKED), st.sampled_from(LAYOUTS),
    st.booleans(),
)  # fmt: skip
def test_round_trip(dtype, byte_order, shape, layout, writeable):
    array = laid_out(smooth(shape, dtype, scale=scale_of(dtype)).astype(byte_order + dtype), layout)
    array.flags.writeable = writeable
    before = array.copy()
    asked = target(array)
    stream = encode(array, asked)
    np.testing.assert_array_equal(array, before)
    assert len(stream) <= array.nbytes / asked.ratio
    decoded = decode(stream)
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    in_f = array.flags.f_contiguous and not array.flags.c_contiguous
    assert decoded.flags.f_contiguous if in_f else decoded.flags.c_contiguous
    assert psnr(array, decoded) > FLOOR
    assert array.min() <= decoded.min()
    assert decoded.max() <= array.max()
    assert_quality_is_stored(array, stream, decoded)
    corner = (slice(2),) * len(shape)
    assert_near(decode(stream, corner), decoded[corner], scale_of(dtype))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from(["C", "F"]),
    st.integers(0, 2**20),
    st.booleans(),
)
def test_what_is_small_is_stored_exactly(dtype, byte_order, shape, order, seed, special):
    """Any values, NaN and infinities among them: no network is smaller than they are."""
    rng = np.random.default_rng(seed)
    shape = tuple(shape[: 5 if math.prod(shape) <= 40 else 2])
    size = math.prod(shape)
    dtype = np.dtype(byte_order + dtype)
    array = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(shape).copy(order)
    if dtype.kind == "f":
        array[~np.isfinite(array)] = 0
        if special:
            array[rng.random(shape) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
    stream = encode(array, Settings(psnr=300))
    for decoded in decode(stream), reference_decoder.decode(stream).array:
        np.testing.assert_array_equal(decoded, array)
        assert decoded.dtype == array.dtype
        assert decoded.flags.f_contiguous == array.flags.f_contiguous or size < 2
    if size:
        assert open_stream(stream).header.psnr == math.inf


@pytest.mark.parametrize("value", [7, np.nan, np.inf, -np.inf, -0.0])
def test_constant_arrays_take_a_header(value):
    array = np.full((40, 50, 60), value, "f4")
    stream = encode(array, Settings(ratio=5000))
    assert len(stream) < 60
    np.testing.assert_array_equal(decode(stream), array)


def test_empty_and_scalar_arrays():
    for shape in (0,), (3, 0, 2):
        decoded = decode(encode(np.zeros(shape, ">i2"), Settings(ratio=1000)))
        assert (decoded.shape, decoded.dtype) == (shape, ">i2")
    assert decode(encode(np.array(2.5), Settings(psnr=40))) == 2.5
    with pytest.raises(BudgetError):
        encode(np.array(2.5), Settings(ratio=2))


def test_broadcast_arrays():
    row = smooth((40,))
    array = np.broadcast_to(row, (30, 40))
    decoded = decode(encode(array, target(array)))
    assert psnr(array, decoded) > FLOOR


# --------------------------------------------------------------------------- special values


def test_nan_and_infinities_come_back():
    array = smooth((9, 10, 11), "f8")
    rng = np.random.default_rng(0)
    for value in np.nan, np.inf, -np.inf:
        x, y, z = rng.integers(0, 6, 3)
        array[x : x + 3, y : y + 4, z : z + 5] = value
    stream = encode(array, target(array, 330))
    decoded = decode(stream)
    special = ~np.isfinite(array)
    np.testing.assert_array_equal(decoded[special], array[special])
    assert np.isfinite(decoded[~special]).all()
    assert psnr(array, decoded) > FLOOR
    assert_quality_is_stored(array, stream, decoded)


@pytest.mark.parametrize(("dtype", "missing"), [("i2", -32768), ("f4", 1e20), (">u8", 2**64 - 1)])
@pytest.mark.parametrize("fill_value", [False, True], ids=["missing", "fill_value"])
def test_a_sentinel_is_exact_and_out_of_the_range(dtype, missing, fill_value):
    array = smooth(SHAPE, dtype)
    array[2:6, :4, 5:] = missing
    at = array == np.dtype(dtype).type(missing)
    if fill_value:
        stream = encode(array, target(array, 270), fill_value=missing)
    else:
        stream = encode(array, target(array, 270, missing=missing))
    decoded = decode(stream)
    np.testing.assert_array_equal(decoded == np.dtype(dtype).type(missing), at)
    assert np.abs(decoded[~at].astype("f8") - array[~at].astype("f8")).max() < 40
    assert_quality_is_stored(array, stream, decoded)


def test_a_fill_value_among_the_values_is_one_of_them():
    array = smooth(SHAPE)
    array[:4] = 50
    assert reference_decoder.decode(encode(array, target(array), fill_value=50)).masks == []


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_ends_of_64_bits(dtype):
    ends = np.iinfo(dtype)
    array = (smooth(SHAPE, "f8", scale=0.9 * (ends.max / 2 - ends.min / 2) * 2) + ends.min * 0.9).astype(
        dtype
    )
    array.flat[0], array.flat[-1] = ends.min, ends.max
    stream = encode(array, target(array))
    decoded = decode(stream)
    assert np.abs(decoded.astype("f8") - array.astype("f8")).mean() < 0.1 * 2.0**64
    assert psnr(array, decoded) > FLOOR
    np.testing.assert_allclose(
        decoded.astype("f8"), reference_decoder.decode(stream).array.astype("f8"), rtol=0, atol=2.0**64 * 1e-5
    )


def test_ranges_beyond_the_largest_double():
    array = (smooth(SHAPE, "f8", scale=2.0) - 1) * np.finfo("f8").max
    stream = encode(array, target(array))
    decoded, big = decode(stream), np.finfo("f8").max
    found = psnr(array / big, decoded / big)
    assert found > FLOOR
    assert open_stream(stream).header.psnr == pytest.approx(found, abs=0.011)


def test_ranges_of_subnormal_numbers():
    array = np.random.default_rng(0).integers(0, 2, SHAPE) * 5e-324
    decoded = decode(encode(array, target(array, 200)))
    assert set(np.unique(decoded)) <= {0, 5e-324}


# --------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("decibels", [30, 45])
def test_psnr_is_reached(decibels):
    array = smooth((10, 11, 12))
    stream = encode(array, Settings(psnr=decibels, effort="fast"))
    assert psnr(array, decode(stream)) >= decibels
    assert len(stream) < len(zlib.compress(array.tobytes(), 9))


def test_psnr_that_only_exact_values_reach():
    array = np.random.default_rng(0).integers(0, 256, (20, 26), "u1")
    stream = encode(array, Settings(psnr=60, effort="fast"))
    np.testing.assert_array_equal(decode(stream), array)
    assert len(stream) < array.nbytes + 60


@pytest.mark.parametrize(
    ("shape", "dtype", "ratio", "experts"),
    [
        ((6, 6), "f4", 8, None),
        ((100,), "f4", 9, None),
        ((2, 3, 2, 3, 2), "f4", 11, None),
        ((8, 9, 10), "f4", 15, 30),
    ],
)
def test_the_smallest_chunk_named_would_do(shape, dtype, ratio, experts):
    rng = np.random.default_rng(0)
    asked = Settings(ratio=ratio, effort="fast", experts=experts)
    with pytest.raises(BudgetError) as caught:
        encode(rng.integers(0, 200, shape).astype(dtype), asked)
    (named,) = re.findall(r"for example \(([\d, ]+)\)", str(caught.value))
    enough = tuple(int(n) for n in named.split(",") if n.strip())
    array = rng.integers(0, 200, enough).astype(dtype)
    assert len(encode(array, asked)) <= array.nbytes / ratio
    (count,) = re.findall(r"would do has (\d+) elements", str(caught.value))
    assert int(count) <= array.size
    if len(shape) == 1:
        with pytest.raises(BudgetError):  # less than that would not do
            encode(array[: int(count) - 3], asked)


def test_the_seed_decides(stored):
    array, stream = stored
    asked = target(array, experts=2)
    assert encode(array, asked) == stream
    assert encode(array, target(array, experts=2, seed=1)) != stream


def test_the_budget_is_used(stored):
    _, stream = stored
    assert 0.95 * 230 <= len(stream) <= 230


# -------------------------------------------------------------------------------- decoding


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
    stream = encode(array, target(array))
    grid = np.ix_([0, 0, 0], np.arange(20), np.arange(30))
    assert_near(decode(stream, grid), decode(stream)[grid])


def run(code):
    """Run a program in a process of its own; what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_decoding_needs_no_torch():
    code = """
import sys
sys.modules.update(dict.fromkeys(["torch", "scipy", "rich"]))  # an import of them now fails
import numpy as np
from tests.conformance.freeze_streams import FEATURES, names
from moec_zarr.codec.encode import decode, encode
from moec_zarr.settings import Settings
for feature in FEATURES:
    path, beside = names(feature)
    expected = np.load(beside)["expected"].astype("f8")
    np.testing.assert_allclose(decode(path.read_bytes()).astype("f8"), expected, rtol=1e-4, atol=1)
assert decode(encode(np.ones(9), Settings(ratio=1))).sum() == 9  # constant arrays need no fit
try:
    encode(np.random.rand(20, 20, 20), Settings(ratio=20))
except ImportError as error:
    print("moec_zarr[encode]" in str(error))
"""
    assert run(code) == ["True"]


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
    (array, {"ratio": 10, "experts": 4096}),
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
    unsupported = "UnsupportedArrayError"
    assert run(code)[::2] == ["BudgetError"] * 2 + [unsupported] * 6
    assert set(run(code)[1::2]) == {"False"}


def test_a_device_that_is_not_there():
    array = smooth(SHAPE)
    with config.set(device="abacus"), pytest.raises(MoECError, match="device is 'abacus'"):
        encode(array, target(array))


@pytest.mark.parametrize("shape", [(1,) * 6, (0, 2**33)], ids=str)
def test_shapes_that_cannot_be_stored(shape):
    with pytest.raises(UnsupportedArrayError, match="Remedy"):
        encode(np.zeros(shape, "u1"), Settings(ratio=1))


# -------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ratio": 10, "psnr": 40},
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
def test_settings_out_of_range(given):
    with pytest.raises(MoECError, match="got"):
        Settings(**given)


def test_settings_come_back_as_plain_types():
    asked = Settings(psnr=np.float32(40), missing=np.int8(-1), seed=np.uint8(3), experts=np.int64(2))
    stored = asked.to_dict()
    assert stored == {"psnr": 40, "missing": -1, "seed": 3, "experts": 2}
    assert {type(value) for value in stored.values()} <= {int, float}
    assert Settings.from_dict(stored) == asked
    with pytest.raises(MoECError, match=r"'max_eror'.*upgrade"):
        Settings.from_dict({"ratio": 10, "max_eror": 1})


# --------------------------------------------------------------------------- hostile input


def outcome(data, shape):
    """What decoding some bytes leads to: the name of an error of ours, or "array"."""
    try:
        decoded = decode(data, shape=shape)
    except MoECError as error:
        return type(error).__name__
    assert decoded.shape == shape
    return "array"


def repaired(stream):
    """A stream whose checksum matches again."""
    return stream[:4] + zlib.crc32(stream[8:]).to_bytes(4, "little") + stream[8:]


@pytest.mark.parametrize("feature", FEATURES)
def test_truncated_streams(feature):
    stream, shape = names(feature)[0].read_bytes(), FEATURES[feature][0].shape
    for length in range(len(stream)):
        assert outcome(stream[:length], shape) == "CorruptStreamError"
        if length >= 8:  # with a checksum that matches, what remains may decode
            assert outcome(repaired(stream[:length]), shape) in ("CorruptStreamError", "array")


@pytest.mark.parametrize("feature", FEATURES)
def test_damaged_streams(feature):
    """Every byte in turn, as damage and as an attacker who repairs the checksum would have it."""
    stream, shape = names(feature)[0].read_bytes(), FEATURES[feature][0].shape
    found = set()
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 0xFF if at % 2 else 1 << at % 8
        version = UnsupportedVersionError.__name__
        assert outcome(bytes(damaged), shape) == (version if at == 3 else "CorruptStreamError")
        found.add(outcome(repaired(bytes(damaged)), shape))
    assert found <= {"CorruptStreamError", "UnsupportedVersionError", "array"}


@pytest.mark.parametrize("feature", FEATURES)
def test_damaged_streams_take_little_memory(feature):
    stream, shape = names(feature)[0].read_bytes(), FEATURES[feature][0].shape
    tracemalloc.start()
    try:
        for at in range(8, len(stream), 5):
            damaged = bytearray(stream)
            damaged[at] ^= 0xFF
            outcome(repaired(bytes(damaged)), shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_a_small_stream_does_not_make_a_large_network():
    """A payload that claims a network far beyond its bytes is refused before it is made."""
    stream = names("one_expert")[0].read_bytes()
    header = stream[: -len(reference_decoder.decode(stream).sections[4]) - 3]
    claims = b"".join(bytes([0x80, 0x20]) for _ in range(3)) + b"\x10" + bytes(100)
    section = bytes([4, len(claims)]) + claims
    tracemalloc.start()
    try:
        with pytest.raises(MoECError, match="weights"):
            decode(repaired(header + section))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------ real fields


@pytest.mark.parametrize("name", ["um_xwind_4d", "cmip6_siconc_nan_3d"])
def test_a_crop_of_a_real_field(name):
    path = FIELDS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    with np.load(path) as archive, warnings.catch_warnings():
        array = archive[archive.files[0]]
    middle = tuple(slice(n // 2 - min(n, 16) // 2, n // 2 + min(n, 16) // 2) for n in array.shape)
    crop = array[middle]
    stream = encode(crop, Settings(ratio=crop.nbytes / 400, effort="fast"))
    decoded = decode(stream)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(crop))
    assert len(stream) <= 400
    if len(np.unique(crop[np.isfinite(crop)])) > 1:
        assert psnr(crop, decoded) > 12
