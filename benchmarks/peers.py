"""Other codecs, as native code on one thread, at a given number of bytes or within a bound on the error.

SPERR, ZFP and JPEG XL (imagecodecs), SZ3 (pysz), x265 and SVT-AV1 (PyAV). Every *form* (mode, layout of the
axes, predictor) is brought to the bytes asked for by bisection and interpolation, and the one with the least
error counts; within a bound it is the one with the fewest bytes (see ``benchmarks/forms.py``).

Integers, which most of them do not take, are given as float32 (float64 from 32 bits on), and rounded and
clipped to the dtype after decoding. The ratio is that of the integers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.forms import Array, Form, Layout, UnreachableError, UnsuitableError, bisect, filled, layouts
from benchmarks.forms import restored as restore
from benchmarks.records import Line, versions
from benchmarks.video import av1_forms, hevc_forms

DECADES = 7  # of error bounds, from a multiple of the range downwards
BIT_DECADES = 5  # of bits a value, from 16 downwards
DECIBELS = (1.0, 150.0)  # from the coarsest to the finest
SZ3_PREDICTORS = ("INTERP_LORENZO", "INTERP", "LORENZO_REG")
DISTANCES = (25.0, 4)  # of JPEG XL: the coarsest, and decades below it
JXL_EFFORT = 5  # larger ones took ten times as long and came no closer
REPEATS = 2  # of a measurement, of which the fastest counts


# ------------------------------------------------------------------- codecs of floating-point values


def sperr(array: Array, level: float, mode: str) -> bytes:
    """Encode two or three axes with SPERR in the mode "psnr", "bpp" or "pwe"."""
    imagecodecs = _imported("imagecodecs")
    return bytes(imagecodecs.sperr_encode(array, level=level, mode=mode, numthreads=1))


def unsperr(stream: bytes) -> Array:
    """Decode a stream of SPERR."""
    return np.asarray(_imported("imagecodecs").sperr_decode(stream, numthreads=1))


def sz3(array: Array, bound: float, predictor: str = "INTERP_LORENZO") -> bytes:
    """Encode one to four axes with SZ3 within an absolute bound."""
    pysz = _imported("pysz")
    settings = pysz.szConfig()
    settings.errorBoundMode = pysz.szErrorBoundMode.ABS
    settings.absErrorBound = bound
    settings.cmprAlgo = getattr(pysz.szAlgorithm, predictor)
    return bytes(pysz.sz.compress(array, settings)[0].tobytes())


def unsz3(stream: bytes, like: Array) -> Array:
    """Decode a stream of SZ3 into the dtype and the shape of another array."""
    decoded, _ = _imported("pysz").sz.decompress(np.frombuffer(stream, np.uint8), like.dtype, like.shape)
    return np.asarray(decoded)


def _imported(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError as error:
        raise UnsuitableError(f"{package} is not installed") from error


def _floats(array: Array) -> Array:
    if array.dtype.kind != "f":
        return array.astype(np.float64 if array.itemsize > 2 else np.float32)
    return array if array.itemsize >= 4 else array.astype(np.float32)


def _span(array: Array) -> float:
    return (float(array.max()) - float(array.min())) or 1.0


def _bounds(array: Array, most: float) -> Callable[[float], float]:
    """An error bound: at x = 1 `most` times the range of the values, decades below it at x = 0."""
    return lambda x: most * _span(array) * 10.0 ** (DECADES * (x - 1))


def _bits(x: float) -> float:
    """Bits a value: 16 at x = 0, at x = 1 far below what any ratio measured asks for."""
    return float(16 * 10.0 ** (-BIT_DECADES * x))


def _form(
    name: str, layout: Layout, encode: Callable[[float], bytes], decode: Callable[[bytes], Any]
) -> Form:
    return Form(f"{name} {layout.name}", encode, lambda stream: layout.restore(np.asarray(decode(stream))))


def _sperr(array: Array, bound: float | None) -> Iterator[Form]:
    def quality(x: float) -> float:
        return DECIBELS[1] + x * (DECIBELS[0] - DECIBELS[1])

    modes = {"psnr": quality, "bpp": _bits} if bound is None else {"pwe": lambda _: bound}
    for layout in layouts(_floats(array), 2, 3):
        for mode, level in modes.items():
            yield _form(mode, layout, lambda x, a=layout.array, k=level, m=mode: sperr(a, k(x), m), unsperr)


def _sz3(array: Array, bound: float | None) -> Iterator[Form]:
    level = _bounds(array, 1) if bound is None else lambda _: bound
    for layout in layouts(_floats(array), 1, 4):
        for predictor in SZ3_PREDICTORS:
            yield _form(
                predictor, layout,
                lambda x, a=layout.array, p=predictor: sz3(a, level(x), p),
                lambda stream, a=layout.array: unsz3(stream, a),
            )  # fmt: skip


def _zfp(array: Array, bound: float | None) -> Iterator[Form]:
    imagecodecs = _imported("imagecodecs")
    mode = imagecodecs.ZFP.MODE
    modes = {
        mode.FIXED_ACCURACY: _bounds(array, 8),
        mode.FIXED_PRECISION: lambda x: round(1 + 31 * (1 - x)),
        mode.FIXED_RATE: _bits,
    }
    if bound is not None:
        modes = {mode.FIXED_ACCURACY: lambda _: bound}
    for layout in layouts(_floats(array), 1, 4):
        for each, level in modes.items():
            yield _form(
                each.name.lower(), layout,
                lambda x, a=layout.array, k=level, m=each: bytes(
                    imagecodecs.zfp_encode(a, level=k(x), mode=m, numthreads=1)
                ),
                imagecodecs.zfp_decode,
            )  # fmt: skip


def _jpeg_xl(array: Array, bound: float | None) -> Iterator[Form]:
    """All slices below one another, as grey floats between 0 and 1."""
    imagecodecs = _imported("imagecodecs")
    low, span = float(array.min()), _span(array)
    layout = next(layouts(array, 2, array.ndim))
    image = ((layout.array - low) / span).astype(np.float32).reshape(-1, layout.array.shape[-1])

    def encode(x: float) -> bytes:
        distance = DISTANCES[0] * 10.0 ** (DISTANCES[1] * (x - 1))
        return bytes(imagecodecs.jpegxl_encode(image, distance=distance, effort=JXL_EFFORT, numthreads=1))

    def decode(stream: bytes) -> Array:
        decoded = imagecodecs.jpegxl_decode(stream, numthreads=1).astype(np.float64)
        return layout.restore(decoded.reshape(layout.array.shape) * span + low)

    yield Form("slices", encode, decode)


@dataclass(frozen=True)
class Peer:
    """A codec to compare with.

    Attributes
    ----------
    package : str
        The distribution that holds it.
    forms : callable
        Its forms for an array and a bound on the absolute error, or None where bytes are asked for.
    bounded : bool
        Whether it has a mode with a bound.
    integers : bool
        Whether it takes integers alone.
    """

    package: str
    forms: Callable[[Array, float | None], Iterator[Form]]
    bounded: bool = False
    integers: bool = False


PEERS = {
    "SPERR": Peer("imagecodecs", _sperr, bounded=True),
    "SZ3": Peer("pysz", _sz3, bounded=True),
    "ZFP": Peer("imagecodecs", _zfp, bounded=True),
    "JPEG XL": Peer("imagecodecs", _jpeg_xl),
    "x265": Peer("av", hevc_forms, integers=True),
    "SVT-AV1": Peer("av", av1_forms, integers=True),
}


def peer_version(peer: str) -> str | None:
    """The package of a peer with its version; None where it is not installed."""
    package = PEERS[peer].package
    found = versions(package)[package]
    return found and f"{package} {found}"


def measure(
    peer: str,
    array: Array,
    *,
    budget: int | None = None,
    bound: float | None = None,
    found: Line | None = None,
) -> tuple[Line, Array]:
    """Measure the best that a peer makes of an array in so many bytes, or within a bound.

    Parameters
    ----------
    found : dict, optional
        The form and x of an earlier call, with which nothing is searched.

    Returns
    -------
    dict
        ``found``, ``bytes``, ``encode_cpu`` and ``decode_cpu`` (of that form alone, the search over).
    array
        As decoded, with the shape, the dtype and all that is not finite of the original.

    Raises
    ------
    UnreachableError
        If no form reaches the bytes; says how many the smallest takes.
    UnsuitableError
        If the peer does not take such an array, or is not installed.
    """
    known = PEERS[peer]
    if known.integers and array.dtype.kind not in "iu":
        raise UnsuitableError(f"{peer} stores integers, the array holds {array.dtype}")
    if bound is not None and not known.bounded:
        raise UnsuitableError(f"{peer} has no mode with a bound on the absolute error")
    valid = np.isfinite(array)
    given = filled(array, valid)
    if bound is not None and array.dtype.kind != "f":
        bound = math.floor(bound) + 0.499  # the widest with which rounding leads back to the bound
    forms = {form.name: form for form in known.forms(given, bound)}
    if found is None:
        found = _search(forms, given, valid, budget)
    form = forms[found["form"]]
    encoding, decoding = [], []
    for _ in range(REPEATS):
        begun = time.process_time()
        stream = form.encode(found["x"])
        encoded = time.process_time()
        decoded = form.decode(stream)
        decoding.append(time.process_time() - encoded)
        encoding.append(encoded - begun)
    line = {"found": found, "bytes": len(stream), "encode_cpu": min(encoding), "decode_cpu": min(decoding)}
    return line, np.where(valid, restore(decoded, given), array)


def _search(forms: dict[str, Form], array: Array, valid: Array, budget: int | None) -> Line:
    """The form and x with the least error in so many bytes, or without a budget with the fewest bytes."""
    best, found = math.inf, Line()
    misses = []
    for form in forms.values():
        x = 0.0
        if budget is None:
            cost = float(len(form.encode(x)))
        else:
            try:
                x, stream = bisect(form.encode, budget)
            except UnreachableError as miss:
                misses.append(f"{form.name} {miss}")
                continue
            error = restore(form.decode(stream), array).astype(np.float64) - array
            cost = float(np.mean(np.square(error), where=valid))
        if cost < best:
            best, found = cost, {"form": form.name, "x": x}
    if not found:
        raise UnreachableError("; ".join(misses))
    return found
