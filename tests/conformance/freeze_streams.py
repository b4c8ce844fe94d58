"""Write frozen streams: ``python -m tests.conformance.freeze_streams [FEATURE ...]``, an explicit act.

Without a name all that holds the version of the format is written anew (``make streams``): all frozen
streams, those that are refused, and the samples for the registry of zarr extensions. Other files there go.

Each feature of the format has one stream in ``tests/conformance/streams``, beside what it decodes to, and
the dictionary that it takes entries of, if there is one. What it decodes to is taken from the original data
where the stream is exact, and from the reference decoder where a network or a transform is in it, never
from the code under test.

With ``experts`` and the effort "fast" the encoder makes a network alone; without, it measures what
is best, which may differ where rounding does.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import zarr
from numpy.typing import NDArray

from moec_zarr import MoECSerializer, train_dictionary
from moec_zarr.bitstream.container import VERSION, Section, write_stream
from moec_zarr.bitstream.contexts import Context
from moec_zarr.bitstream.exact import write_exact, write_planes, write_predicted
from moec_zarr.bitstream.linear_experts import write_linear_experts, write_shift
from moec_zarr.bitstream.prediction import Predictor
from moec_zarr.bitstream.residual import write_residual
from moec_zarr.bitstream.values import write_lossless, write_masked_values
from moec_zarr.codec.encode import encode
from moec_zarr.codec.lossless import encode_rounded
from moec_zarr.codec.prepare import find_masked_values, prepare
from moec_zarr.demo.simulate import simulate
from moec_zarr.dictionary import Dictionary, Entry
from moec_zarr.fit.advice import Advice
from moec_zarr.fit.presets import PRESETS
from moec_zarr.model.basis import DOUBLE, AxisBasis
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.levels import Bits, as_integers
from moec_zarr.model.linear_experts import LinearExperts, RestoredField
from moec_zarr.model.residual import Residual
from moec_zarr.settings import Settings
from tests.conformance import reference_decoder
from tests.support.fields import smooth
from tests.support.fits import as_integers_at_last

FOLDER = Path(__file__).parent / "streams"
REFUSED = FOLDER / "refused.jsonl"
SAMPLES = Path(__file__).parents[2] / "docs" / "zarr-extension" / "sample_data"
SHAPE = (8, 9, 10)


def _rough(shape: tuple[int, ...], dtype: str = "f4") -> NDArray[Any]:
    return (smooth(shape) + np.random.default_rng(0).normal(0, 3, shape)).astype(dtype)


def _with_masked_values(data: NDArray[Any]) -> NDArray[Any]:
    data[2:5, 3:7, 4:8] = np.nan
    data[6:, 7:, 8] = np.inf
    data[0, 0, :3] = -np.inf
    return data


def _with_missing(value: int = -999) -> NDArray[Any]:
    data = smooth(SHAPE, "i2", scale=3000)
    data[:, :3, 6:] = value
    return data


def _padded() -> NDArray[Any]:
    data = np.full((10, 9, 13), np.nan, "f4")
    data[:8, :, :10] = smooth(SHAPE)
    return data


def _thin() -> NDArray[Any]:
    data = smooth((6000,), "u1")
    data[300:2000], data[-1] = 255, 9
    return data


def _decades(dtype: str = "f4", zeros: int = 0, signs: int = 0) -> NDArray[Any]:
    """Magnitudes from a millionth to a thousand, with zeros and with both signs."""
    data = (10 ** (_rough(SHAPE, "f8") / 11 - 6)).astype(dtype)
    data[:, :zeros, 2:5] = 0
    data[:, :, :signs] *= -1
    return data


def _simulated(name: str) -> NDArray[Any]:
    return np.ascontiguousarray(simulate((4, 1, 24, 20), seed=1)[name].values[:, 0])


def _rain(shape: tuple[int, ...], dtype: str = "f4") -> NDArray[Any]:
    """Zeros, and tenths where there are none."""
    return np.maximum(np.rint(smooth(shape, scale=30) - 12), 0).astype(dtype) / np.array(10, dtype)


def _ball() -> NDArray[Any]:
    """A ball with a sharp edge, in layers."""
    z, y, x = np.indices((16, 20, 24))
    ball = np.tanh(3 * np.sqrt((z - 7) ** 2 + (y - 9) ** 2 + (x - 11) ** 2) - 21)
    return (ball + 0.3 * (np.sin(z / 2) > 0)).astype("f4")


def _wet(shape: tuple[int, ...]) -> NDArray[Any]:
    """Zeros, and large numbers where there are none."""
    return np.where(smooth(shape) > 60, 400 + np.rint(_rough(shape)), 0).astype("f8")


def _signed(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return (np.sign(_rough(shape, dtype)) * np.exp(smooth(shape, scale=3))).astype(dtype)


def _repeated(shape: tuple[int, ...]) -> NDArray[Any]:
    period = np.random.default_rng(1).normal(size=90)
    return np.resize(period, shape).astype("f4")


# What each stream is to show: the data, and what its settings say; 230 bytes where they say nothing.
# `rounded` are absolute and relative bounds of a stream without a fit.
FEATURES: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "one_expert": (smooth(SHAPE), {"experts": 1}),
    "experts": (smooth(SHAPE), {"experts": 3, "stream_bytes": 260}),
    "transform": (_simulated("temperature"), {"stream_bytes": 500}),
    "transform_joint": (_simulated("vorticity"), {"stream_bytes": 500}),
    "transform_graph": (_simulated("temperature"), {"stream_bytes": 500}),
    "transform_and_experts": (_simulated("tracer"), {"stream_bytes": 600, "experts": 2}),
    "transform_rank_1": (_rough((700,)), {}),
    "transform_folded": (_rough((2, 2100)), {}),
    "transform_rank_5": (_rough((4, 5, 1, 6, 5), "f8"), {}),
    "transform_mask": (_with_masked_values(_rough(SHAPE)), {"stream_bytes": 300}),
    "restored": (_ball(), {"stream_bytes": 500}),
    "restored_residual": (_ball()[8], {"max_error": 0.05}),
    "restored_shared": (_ball()[8], {}),
    "mask": (_with_masked_values(smooth(SHAPE)), {"stream_bytes": 300, "experts": 1}),
    "mask_packed": (_thin(), {"missing": 255}),
    "missing": (_with_missing(), {"missing": -999}),
    "bounding_box": (_padded(), {}),
    "lossless": (np.repeat(np.arange(4, dtype="i4"), 500).reshape(4, 20, 25), {}),
    "constant": (np.full((3, 4), 2.5), {"stream_bytes": 96}),
    "big_endian_f_order": (np.asfortranarray(smooth(SHAPE, ">f4")), {"experts": 1}),
    "int16": (smooth(SHAPE, "i2", scale=3000) - np.int16(500), {}),
    "uint64": (smooth(SHAPE, "u8", scale=1e19) + np.uint64(10**18), {"experts": 1}),
    "residual": (_rough(SHAPE), {"max_error": 4.0}),
    "residual_mask": (_with_masked_values(_rough(SHAPE, "f8")), {"max_error": 4.0}),
    "residual_int16": (_rough(SHAPE, "i2"), {"max_error": 2.0}),
    "residual_alone": (_rough(SHAPE), {"max_error": 1e3}),
    "residual_network": (smooth((5000,)) + _rough((5000,)), {"max_error": 8.0, "experts": 1}),
    "scale": (_with_masked_values(_decades(zeros=3, signs=6)), {"max_relative_error": 0.05}),
    "scale_positive": (_decades("f8"), {"max_relative_error": 0.02}),
    "scale_knee": (_rough(SHAPE) - 40, {"max_relative_error": 0.02, "max_error": 0.3}),
    "scale_uint64": ((_decades("f8") * 1e15).astype("u8"), {"max_relative_error": 0.01}),
    "scale_int16": (_rough(SHAPE, "i2") * 300 - 9000, {"max_relative_error": 0.02}),
    "scale_missing": (_with_missing(1000), {"max_relative_error": 0.02, "missing": 1000}),
    "scale_ratio": (_decades("f2", zeros=3), {"scale": "log"}),
    "exact": (np.clip(_rough(SHAPE), 20, 80), {"exact": [20, 80], "stream_bytes": 400}),
    "integers_bits": (smooth(SHAPE, "i2", scale=3000), {"rounded": (0, 0)}),
    "integers_grid": (_rough(SHAPE), {"rounded": (1.5, 0)}),
    "integers_grid_uint64": (smooth(SHAPE, "u8", scale=1e5), {"rounded": (9, 0)}),
    "integers_ladder": (_signed(SHAPE, "f8"), {"rounded": (0, 0.05)}),
    "integers_knee": (_signed(SHAPE, "f4"), {"rounded": (1.0, 0.05)}),
    "integers_table": (_rain((4, 5, 6, 7)) ** 3, {"rounded": (0, 0)}),
    "integers_blank": (_with_masked_values(_wet(SHAPE).astype("f4")), {"rounded": (0, 0)}),
    "integers_repeats": (np.rint(_rough((4, 3, 5, 3, 2)) / 20).astype("i8"), {"rounded": (0, 0)}),
    "integers_planes": (_repeated((20, 45)), {"rounded": (0, 0)}),
    "integers_folded": (smooth((2, 2100), "i4", scale=300), {"rounded": (2, 0)}),
    "shared": (_with_masked_values(_rough(SHAPE)), {"stream_bytes": 300, "model": "transform"}),
    "rank_1": (smooth((700,)), {"experts": 1}),
    "rank_5": (smooth((4, 5, 1, 6, 5), "f8"), {"experts": 1}),
}

# Bases of those that show them, where the encoder has others to choose from.
BASES = {
    "transform": (AxisBasis(), AxisBasis(1), AxisBasis(2)),
    "transform_joint": (AxisBasis(), AxisBasis(1, joint=True), AxisBasis(2, joint=True)),
    "transform_graph": (AxisBasis(edge_weights=(9, 4, 7)), AxisBasis(), AxisBasis()),
}


# How integers are coded in streams that show it, where the encoder has a choice.
CODED: dict[str, Any] = {
    "integers_planes": lambda integers, valid: write_planes(integers.reshape(-1), 19),
    "integers_blank": lambda integers, valid: write_predicted(
        integers, valid, Predictor((700, 400, -30), 400, 0, True)
    ),
    "integers_repeats": lambda integers, valid: write_predicted(integers, valid, Predictor((), 3, 0)),
}


# What restores the transform of a stream that the encoder would not restore, and its corrections.
EXPERTS = LinearExperts(
    (170, 190), (), (160, 150), np.array([[[-1, 0], [2, -1]], [[1, 3], [0, 0]], [[0, -2], [5, 1]]], np.int32),
    np.array([[1], [0], [-4]], np.int32),
)  # fmt: skip
CONTEXT = Context((20, 10, 5, 20, 10, 5), floor=8, rise=0, power=128, offset=0, slope=0)


def _corrected(data: NDArray[Any], bound: float) -> bytes:
    """A stream with a transform, `EXPERTS`, and corrections that keep a bound."""
    from moec_zarr.fit.transform.rate_control import fit_transform  # needs numba, which readers need not have

    chunk, half = prepare(data, None, None), np.ptp(data.astype("f8")) / 2
    target = (data - (data.min() + half)) / half
    transform = fit_transform(target.astype("f4"), None, 150)
    restored = RestoredField(CoefficientField(transform.coefficients, DOUBLE), EXPERTS).whole()
    spacing = np.float32(1.9 * bound / half)
    corrections = np.rint((target - restored) / spacing).astype(np.int8)
    error = float(np.abs(restored + spacing * corrections - target).max() / 2)
    header = replace(chunk.header, psnr=0.0, max_error=error)
    payload = write_linear_experts(EXPERTS, (16, 16))
    return write_stream(
        header,
        {
            Section.RESIDUAL: write_residual(Residual(bound, float(spacing), corrections), CONTEXT),
            Section.TRANSFORM: transform.payload,
            Section.LINEAR_EXPERTS: payload,
        },
    )


# The dictionary of streams that take entries of one: masks, how a transform begins, experts.
_HEAD = bytes(3) + bytes([3, 1, 1, 4, 0, 1, 7, 1, 0]) + struct.pack("<bbBhh", 39, 9, 128, -2327, -1188)
_EXPERTS = write_linear_experts(EXPERTS, (16, 16))
_MASKS = write_masked_values(find_masked_values(_with_masked_values(_rough(SHAPE)), None), np.dtype("f4"))
_DICTIONARY = Dictionary.make(
    [Entry(6, b"\x01\x02"), Entry(2, _MASKS), Entry(6, _HEAD), Entry(9, b"other"), Entry(10, _EXPERTS)],
    Advice(no_search=True).write(),
)
DICTIONARIES = dict.fromkeys(["shared", "restored_shared"], _DICTIONARY)


def _restored_by_entry(data: NDArray[Any], shift: int) -> bytes:
    """A stream with a transform, and with `EXPERTS` of the dictionary, but for a shift."""
    from moec_zarr.fit.transform.rate_control import fit_transform

    chunk = replace(prepare(data, None, None), dictionary=DICTIONARIES["restored_shared"])
    transform = fit_transform(chunk.field.normalised(), None, 150)
    sections = {
        Section.TRANSFORM: transform.payload,
        Section.LINEAR_EXPERTS: write_shift(shift),  # the experts themselves are entry 4
    }
    return chunk.write(chunk.kept() | sections, replace(chunk.header, psnr=0.0, max_error=1.0), [4])


def decode_by_reference(feature: str, stream: bytes) -> reference_decoder.Decoded:
    """A feature's stream, decoded with its dictionary if it has one."""
    dictionary = DICTIONARIES.get(feature)
    data = None if dictionary is None else base64.b64decode(dictionary.text)
    return reference_decoder.decode(stream, data)


def paths(feature: str) -> tuple[Path, Path]:
    """Of a feature's stream, and of what it decodes to."""
    stem = f"v{VERSION}_{feature}"
    return FOLDER / f"{stem}.moec", FOLDER / f"{stem}.npz"


def make_stream(feature: str) -> bytes:
    """A new stream that shows a feature."""
    data, others = FEATURES[feature]
    if feature in CODED:
        chunk = prepare(data, None, None)
        coded = CODED[feature](as_integers(chunk.array), chunk.valid)
        return write_stream(
            chunk.header, chunk.sections | {Section.INTEGERS: write_exact(Bits(0), None, coded)}
        )
    if "rounded" in others:
        return encode_rounded(prepare(data, None, None), *others["rounded"])
    if feature == "lossless":  # as it was stored before there were integers
        chunk = prepare(data, None, None)
        return write_stream(chunk.header, {Section.LOSSLESS: write_lossless(data)})
    if feature == "residual_alone":
        chunk, bound = prepare(data, None, None), others["max_error"]
        corrections = write_residual(Residual(bound, 1.0, None), CONTEXT)
        return write_stream(replace(chunk.header, psnr=0.0, max_error=1.0), {Section.RESIDUAL: corrections})
    if feature == "restored_residual":
        return _corrected(data, others["max_error"])
    if feature == "restored_shared":
        return _restored_by_entry(data, -122)
    others = {"effort": "fast"} | others
    if not {"max_error", "max_relative_error"} & others.keys():
        others["ratio"] = data.nbytes / others.pop("stream_bytes", 230)
    # Three tenths of the bytes for a network that corrects the transform, where one is asked for.
    alternations = int(feature == "transform_and_experts")
    with ExitStack() as stack:
        stack.enter_context(
            patch.dict(PRESETS, fast=(replace(PRESETS["fast"][0], alternations=alternations),))
        )
        stack.enter_context(patch("moec_zarr.codec.bounded.encode_rounded", as_integers_at_last))
        stack.enter_context(patch("moec_zarr.codec.encode.encode_lossless_within", return_value=None))
        stack.enter_context(patch("moec_zarr.fit.networks._CORRECTION_SHARE", 0.3))
        stack.enter_context(patch("moec_zarr.fit.networks._CORRECTION_BYTES", 150))
        if feature == "transform_and_experts":
            stack.enter_context(patch("moec_zarr.fit.networks.fit_alone", return_value=None))
        if feature in BASES:
            chosen = patch.multiple(
                "moec_zarr.fit.transform.basis_choice",
                find_separate=Mock(return_value=BASES[feature]),
                find_joint=Mock(return_value=BASES[feature]),
            )
            stack.enter_context(chosen)
        dictionary = DICTIONARIES.get(feature)
        return encode(data, Settings(**others, dictionary=None if dictionary is None else dictionary.text))


def list_refused() -> list[dict[str, str]]:
    """Streams that are refused, as `REFUSED` holds them: those of the tests, but for a few of 16 KiB."""
    from tests.conformance.test_corrupt_streams import CORRUPT, RESERVED
    from tests.support.streams import with_checksum

    bodies = [(str(case.id), "corrupt", case.values[0]) for case in CORRUPT]
    bodies += [(name, "version", body) for name, body in RESERVED.items()]
    streams = [(name, error, with_checksum(body)) for name, error, body in bodies]
    streams.append(("version 2", "version", with_checksum(bodies[0][2], 2)))
    return [
        {"name": name, "error": error, "stream": stream.hex()}
        for name, error, stream in streams
        if len(stream) < 1000
    ]


def write_samples() -> None:
    """The arrays that `docs/zarr-extension/sample_data/README.md` describes."""
    i, j, k = np.indices((16, 12, 16))
    values = (100 * np.sin((i + 2 * j + 3 * k) / 12)).astype("f4")
    bounded = MoECSerializer(max_error=0.25, effort="fast")
    with_land = np.where(j + k < 9, np.float32(np.nan), values)
    shared = train_dictionary(bounded, with_land.reshape(4, 4, 12, 16))
    for name, data, codec in (("max_error", values[:4], bounded), ("dictionary", with_land, shared)):
        array = zarr.create_array(
            SAMPLES / f"{name}.zarr", shape=data.shape, chunks=(4, 12, 16), dtype="f4",
            serializer=codec, compressors=None, overwrite=True,
        )  # fmt: skip
        array[:] = data


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    if not sys.argv[1:]:
        for path in FOLDER.iterdir():
            path.unlink()
        REFUSED.write_text("".join(json.dumps(each) + "\n" for each in list_refused()))
        write_samples()
    for feature in sys.argv[1:] or FEATURES:
        data, stream = FEATURES[feature][0], make_stream(feature)
        decoded = decode_by_reference(feature, stream)
        fitted = decoded.network or decoded.coefficients or decoded.residual
        expected = decoded.array if fitted or any(FEATURES[feature][1].get("rounded", ())) else data
        if not np.array_equal(decoded.array, expected, equal_nan=data.dtype.kind == "f"):
            sys.exit(f"{feature}: the reference decoder does not return the data; nothing is written")
        stream_path, expected_path = paths(feature)
        stream_path.write_bytes(stream)
        np.savez_compressed(expected_path, expected=expected)
        if feature in DICTIONARIES:
            stream_path.with_suffix(".dictionary").write_text(DICTIONARIES[feature].text)
        size = expected_path.stat().st_size
        print(f"{stream_path.name}: {len(stream)} bytes; {expected_path.name}: {size} bytes")


if __name__ == "__main__":
    main()
