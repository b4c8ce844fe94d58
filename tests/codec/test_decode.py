"""Decoding: in NumPy and on a device, selections, groups, and what it needs to be installed."""

import numpy as np
import pytest

from moec_zarr import CorruptStreamError, MoECError, config
from moec_zarr.bitstream.container import DTYPES
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode, decode_group
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.codec.checks import assert_quality_is_stored
from tests.codec.conftest import SHAPE
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import DICTIONARIES, FEATURES, paths
from tests.support.decoders import USUAL_ERROR, assert_agrees
from tests.support.fields import assert_near, smooth
from tests.support.fits import fast
from tests.support.processes import run_python

SHARED = DICTIONARIES["shared"]  # of the streams that take entries; others leave it alone


@pytest.fixture
def torch_decodes(device):
    """Torch decodes, on every device."""
    with config.set(decoder="torch", device=device, cache=0):
        yield


@pytest.fixture(scope="module")
def references():
    """All frozen streams, and what they decode to."""
    streams = {feature: paths(feature)[0].read_bytes() for feature in FEATURES}
    return {feature: (stream, np.load(paths(feature)[1])["expected"]) for feature, stream in streams.items()}


def assert_close(stream, values, expected):
    """Within 1e-5 of half the range, and a unit of integers, whose rounding may fall on the other side."""
    assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
    header = open_stream(stream, dictionary=SHARED).header
    half = float(header.high) / 2 - float(header.low) / 2
    apart = 0 if expected.dtype.kind == "f" else 1
    atol = USUAL_ERROR * half + apart
    np.testing.assert_allclose(values.astype("f8"), expected.astype("f8"), rtol=1e-7, atol=atol)


@pytest.mark.parametrize("batch", [None, 7, 100])
@pytest.mark.usefixtures("torch_decodes")
def test_devices_decode_the_frozen_streams(references, batch):
    with config.set(batch=batch):
        for stream, expected in references.values():
            values = decode(stream, dictionary=SHARED)
            assert_agrees(stream, values, expected, SHARED)
            assert values.flags.writeable


@pytest.mark.usefixtures("torch_decodes")
def test_devices_keep_the_memory_order(references):
    for feature, (data, _) in FEATURES.items():
        flags = decode(references[feature][0], dictionary=SHARED).flags
        assert flags.f_contiguous == data.flags.f_contiguous
        assert flags.c_contiguous == data.flags.c_contiguous


@pytest.mark.usefixtures("torch_decodes")
def test_devices_decode_parts(references):
    rng = np.random.default_rng(0)
    for stream, expected in references.values():
        shape = expected.shape
        parts = [
            (slice(None, None, -2),) * len(shape),
            (slice(1, 3), ...),
            (..., shape[-1] - 1),
            (slice(2, 2),) + (slice(None),) * (len(shape) - 1),
            tuple(n // 2 for n in shape),
            np.ix_(*(rng.integers(0, n, 3) for n in shape)),
            tuple(rng.integers(-n, n, (2, 20)) for n in shape),
            tuple(np.empty(0, int) for _ in shape),
        ]
        for part in parts:
            values = np.asarray(decode(stream, part, dictionary=SHARED))
            assert_close(stream, values, np.asarray(expected[part], expected.dtype))


def every_dtype():
    for dtype in DTYPES:
        for order in "<>":
            scale = 100 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max * 0.9
            array = smooth((7, 1, 12, 11), "f8", scale=scale).astype(order + dtype)
            yield np.asarray(array, order="F" if order == ">" else "C")


@pytest.mark.usefixtures("torch_decodes")
def test_devices_decode_every_dtype():
    for array in every_dtype():
        stream = encode(array, Settings(ratio=array.nbytes / 170, effort="fast"))
        expected = reference_decoder.decode(stream).array
        values = decode(stream)
        assert_agrees(stream, values, expected)
        assert values.flags.f_contiguous == array.flags.f_contiguous
        assert_close(stream, decode(stream, np.s_[::-1, :, 3]), expected[::-1, :, 3])


def test_the_decoder_is_chosen(stored, monkeypatch):
    """Torch where the device is a GPU or it is asked for, otherwise NumPy."""
    module = pytest.importorskip("moec_zarr.model.device_torch")
    on_device, used = module.on_device, []
    monkeypatch.setattr(module, "on_device", lambda name: used.append(name) or on_device("cpu"))
    monkeypatch.setattr("moec_zarr.codec.decode.choose_device", lambda: config.get("device"))
    _, stream = stored
    assert config.get("decoder") == "auto"
    for decoder, on_cpu, on_gpu in ("auto", [], ["cuda"]), ("numpy", [], []), ("torch", ["cpu"], ["cuda"]):
        for name, expected in ("cpu", on_cpu), ("cuda", on_gpu):
            used.clear()
            with config.set(decoder=decoder, device=name):
                decode(stream)
            assert used == expected
    with (
        config.set(decoder="abacus"),
        pytest.raises(MoECError, match=r"'auto', 'numpy' or 'torch'.*'abacus'"),
    ):
        decode(stream)


def test_numpy_tiles_do_not_change_values(stored):
    _, stream = stored
    decoded = decode(stream)
    with config.set(batch=17):
        assert_near(decode(stream), decoded)


def test_an_encoder_measures_what_a_device_decodes(device):
    array = smooth((7, 1, 12, 11))
    with config.set(decoder="torch", device=device):
        stream = encode(array, Settings(**fast(array)))
        assert_quality_is_stored(array, stream, decode(stream))


@pytest.mark.parametrize("decoder", ["numpy", "torch"])
def test_groups_are_decoded_as_each_of_them(references, decoder, device):
    streams = [stream for stream, _ in references.values()]
    parts = [slice(None, None, -1)] * len(streams)
    parts[::3] = [None] * len(parts[::3])
    with config.set(decoder=decoder, device=device, cache=0):
        for selections in None, parts:
            values = decode_group(streams, selections, dictionary=SHARED)
            for stream, part, own in zip(streams, selections or [None] * len(streams), values, strict=True):
                expected = decode(stream, part, dictionary=SHARED)
                np.testing.assert_array_equal(own, expected)
                assert (own.dtype, own.strides) == (expected.dtype, expected.strides)
        assert decode_group([]) == []


@pytest.mark.parametrize("decoder", ["numpy", "torch"])
def test_a_group_is_checked(stored, references, decoder, device):
    stream, other = stored[1], references["rank_1"][0]
    with config.set(decoder=decoder, device=device, cache=0):
        with pytest.raises(CorruptStreamError, match="checksum"):
            decode_group([stream, stream[:-1] + bytes([stream[-1] ^ 1]), stream])
        with pytest.raises(CorruptStreamError, match=r"\(8, 9, 10\)"):
            decode_group([stream, other], shape=SHAPE)
        with pytest.raises(CorruptStreamError, match="dtype"):
            decode_group([stream], dtype=np.dtype("i4"))
        with pytest.raises(ValueError, match="argument"):
            decode_group([stream], [None, None])
        assert len(decode_group([stream, stream], shape=SHAPE, dtype=np.dtype(">f4"))) == 2


def test_another_shape_is_refused(stored):
    _, stream = stored
    with pytest.raises(MoECError, match=r"\(8, 9, 10\).*\(8, 9, 11\)"):
        decode(stream, shape=(8, 9, 11))


def test_an_axis_of_one_can_be_taken_twice():
    array = smooth((1, 20, 30))
    stream = encode(array, Settings(**fast(array)))
    grid = np.ix_([0, 0, 0], np.arange(20), np.arange(30))
    assert_near(decode(stream, grid), decode(stream)[grid])
    pytest.importorskip("torch")
    with config.set(decoder="torch"):
        values = decode(stream, grid)
    assert_near(values, decode(stream)[grid])
    assert values.flags.writeable


def test_decoding_needs_no_torch():
    code = """
import sys
sys.modules.update(dict.fromkeys(["numba", "torch", "scipy", "rich"]))  # an import of them now fails
import numpy as np
from tests.conformance.freeze_streams import DICTIONARIES, FEATURES, paths
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
for feature in FEATURES:
    path, values = paths(feature)
    expected = np.load(values)["expected"].astype("f8")
    decoded = decode(path.read_bytes(), dictionary=DICTIONARIES.get(feature))
    np.testing.assert_allclose(decoded.astype("f8"), expected, rtol=1e-4, atol=1)
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


@pytest.mark.torch
def test_an_absent_device_is_refused():
    array = smooth(SHAPE)
    with config.set(device="abacus"), pytest.raises(MoECError, match="device is 'abacus'"):
        encode(array, Settings(**fast(array, experts=1)))
