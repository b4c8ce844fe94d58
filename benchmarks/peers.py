"""Other codecs at a given number of bytes: SPERR, SZ3, TTHRESH and ZFP as WebAssembly, HEVC by FFmpeg.

Each is used in the form that suits it best, so that a comparison errs in its favour: every *form* (mode,
layout of the axes, predictor) is brought to the bytes asked for by bisection and interpolation, and the one
with the least error counts. In particular

- values that are not finite, which all of them fail on or spoil, are filled in with the nearest valid
  value, and put back exactly after decoding. **The bytes of that mask are not charged**;
- integers, which most of them do not take, are given as float32 (float64 from 32 bits on), and rounded and
  clipped to the dtype after decoding; the ratio is that of the integers;
- arrays with more axes than a codec takes have their leading axes merged, the first two both ways round.
  Codecs that take four axes get all layouts. Axes of length one are dropped;
- of HEVC, which stores 8, 10 or 12 bits, the packets alone count: no container, no range of the values.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Array = NDArray[Any]
Settings = dict[str, Any]

NEAR = 0.995  # of the bytes asked for: close enough
STEPS = 14  # of a search at most
DECADES = 7  # of error bounds, from a multiple of the range downwards
SZ3_PREDICTORS = ("interpolation-lorenzo", "interpolation")
BIT_DECADES = 5  # of bits a value, from 16 downwards


class UnreachableError(Exception):
    """A peer cannot make its stream as small as asked."""


class UnsuitableError(Exception):
    """A peer does not take such an array at all."""


@dataclass(frozen=True)
class Form:
    """One way of using a codec.

    Attributes
    ----------
    settings : callable
        The codec's settings at x, from 0 for the finest to 1 for the coarsest.
    encode, decode : callable
        Settings to stream, and a stream to an array in the axes of the original, those of length one apart.
    """

    name: str
    settings: Callable[[float], Settings]
    encode: Callable[[Settings], bytes]
    decode: Callable[[bytes], Array]


def bisect(
    encode: Callable[[float], bytes], budget: int, *, near: float = NEAR, steps: int = STEPS
) -> tuple[float, bytes]:
    """The largest stream found that fits into `budget` bytes, and the x it was made with.

    Parameters
    ----------
    encode : callable
        Stream at x in [0, 1]; the larger x, the smaller it is, by and large.
    near : float
        Share of the budget that a stream must fill to end the search before `steps`. Once a stream on
        each side is known, x is interpolated, since sizes fall about exponentially; every third step halves.

    Raises
    ------
    UnreachableError
        If the coarsest stream does not fit.
    """
    best_x, best = 1.0, encode(1.0)
    if len(best) > budget:
        raise UnreachableError(f"takes at least {len(best)} bytes")
    fine, coarse = 0.0, 1.0
    over, under = 0.0, math.log(len(best))  # logarithms of sizes on either side; none is known of finer ones
    aim = math.log(budget * math.sqrt(near))
    for step in range(steps):
        if len(best) >= near * budget:
            break
        share = 0.5
        if over > under and step % 3 != 2:
            share = min(max((over - aim) / (over - under), 0.02), 0.98)
        x = fine + share * (coarse - fine)
        stream = encode(x)
        if len(stream) > budget:
            fine, over = x, math.log(len(stream))
            continue
        coarse, under = x, math.log(len(stream))
        if len(stream) >= len(best):
            best_x, best = x, stream
    return best_x, best


def measure(peer: str, array: Array, budget: int) -> tuple[Settings, Array]:
    """The best that a peer makes of an array at so many bytes.

    Returns
    -------
    dict
        ``found`` (form and settings), ``bytes``, ``encode_seconds`` and ``decode_seconds`` (of that
        form and those settings alone, the search over) and ``search_seconds``.
    array
        As decoded, with the shape, the dtype and all that is not finite of the original.

    Raises
    ------
    UnreachableError
        If no form reaches the bytes; says how many the smallest takes.
    UnsuitableError
        If the peer does not take such an array.
    """
    valid = np.isfinite(array)
    original, array = array, filled(array, valid)
    begun = time.perf_counter()
    reached: list[tuple[float, Form, Settings]] = []
    misses: list[str] = []
    for form in PEERS[peer].forms(array):
        try:
            x, stream = bisect(partial(_encode, form), budget)
        except UnreachableError as miss:
            misses.append(f"{form.name} {miss}")
            continue
        error = restored(form.decode(stream), array).astype(np.float64) - array
        reached.append((float(np.mean(np.square(error), where=valid)), form, form.settings(x)))
    if not reached:
        raise UnreachableError("; ".join(misses))
    _, form, settings = min(reached, key=lambda each: each[0])
    searched, searched_cpu = time.perf_counter(), time.process_time()
    stream = form.encode(settings)
    encoded, encoded_cpu = time.perf_counter(), time.process_time()
    decoded = form.decode(stream)
    done = time.perf_counter()
    found = {
        "found": {"form": form.name, **settings},
        "bytes": len(stream),
        "encode_seconds": encoded - searched,
        "decode_seconds": done - encoded,
        "encode_cpu_seconds": encoded_cpu - searched_cpu,
        "decode_cpu_seconds": time.process_time() - encoded_cpu,
        "search_seconds": searched - begun,
    }
    return found, np.where(valid, restored(decoded, array), original)


def bounded_forms(peer: str, array: Array, bound: float) -> Iterator[Form]:
    """The forms of a peer in its bounded mode, whatever x.

    Of integers it gets the widest bound with which rounding leads back to `bound`.
    """
    if array.dtype.kind != "f":
        bound = math.floor(bound) + 0.499
    module = f"numcodecs_wasm_{peer.lower()}"
    if peer == "SPERR":
        for layout in layouts(array, 2, 3):
            yield _wasm(module, "Sperr", layout, {"mode": "pwe"}, lambda x: {"pwe": bound})
    elif peer == "SZ3":
        for layout in layouts(array, 1, 4):
            for predictor in SZ3_PREDICTORS:
                fixed = {"eb_mode": "abs", "predictor": predictor}
                yield _wasm(module, "Sz3", layout, fixed, lambda x: {"eb_abs": bound})
    elif peer == "ZFP":
        for layout in layouts(array, 1, 4):
            fixed = {"mode": "fixed-accuracy", "non_finite": "deny"}
            yield _wasm(module, "Zfp", layout, fixed, lambda x: {"tolerance": bound})
    else:
        raise UnsuitableError(f"{peer} has no mode with a bound on the absolute error")


def _encode(form: Form, x: float) -> bytes:
    return form.encode(form.settings(x))


def filled(array: Array, valid: NDArray[np.bool_]) -> Array:
    """The array with the nearest valid value wherever it is not valid."""
    if valid.all():
        return array
    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(array[tuple(nearest)])


def restored(decoded: Array, array: Array) -> Array:
    """What a peer decoded, as the dtype and shape of the original."""
    decoded = decoded.reshape(array.shape)
    if array.dtype.kind == "f":
        return decoded.astype(array.dtype)
    ends = np.iinfo(array.dtype)
    # The largest float64 below the end of a 64-bit range, for the end itself may be rounded up.
    high = float(ends.max) if ends.bits < 64 else math.nextafter(float(ends.max), 0)
    return np.clip(np.rint(decoded.astype(np.float64)), float(ends.min), high).astype(array.dtype)


@dataclass(frozen=True)
class Layout:
    """An array in other axes, and the way back.

    Attributes
    ----------
    array : array
        As a codec is given it.
    order : tuple of int
        The axes longer than one in the order in which they were merged.
    shape : tuple of int
        Lengths of those axes, in their own order.
    """

    array: Array
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def restore(self, decoded: Array) -> Array:
        """What was decoded, in the order of the original's axes."""
        permuted = decoded.reshape([self.shape[axis] for axis in self.order])
        return np.asarray(permuted.transpose(np.argsort(self.order)))

    @property
    def name(self) -> str:
        """Number of axes, and the order of those merged where it is not the array's."""
        swapped = self.order != tuple(sorted(self.order))
        return f"{self.array.ndim}-D" + (" from " + ",".join(map(str, self.order)) if swapped else "")


def layouts(array: Array, least: int, most: int) -> Iterator[Layout]:
    """The array with `least` to `most` axes: as it is, and with all leading ones merged into three.

    The first two are merged both ways round: which of time and level should vary faster differs by field.
    """
    shape = tuple(n for n in array.shape if n > 1)
    orders = [tuple(range(len(shape)))]
    for axes in sorted({min(len(shape), most), min(len(shape), 3)}, reverse=True):
        merged = len(shape) - axes + 1
        if merged > 1:
            orders = [orders[0], (1, 0, *orders[0][2:])]
        for order in orders:
            permuted = array.reshape(shape).transpose(order)
            lengths = permuted.shape
            target = (math.prod(lengths[:merged]), *lengths[merged:])
            target = (1,) * (least - len(target)) + target
            yield Layout(np.ascontiguousarray(permuted.reshape(target)), order, shape)


# ------------------------------------------------------------------------------ WebAssembly


def _wasm(module: str, name: str, layout: Layout, fixed: Settings, knob: Callable[[float], Settings]) -> Form:
    """A form of one of the ``numcodecs-wasm-*`` codecs."""
    array = layout.array
    if array.dtype.kind != "f":
        array = array.astype(np.float64 if array.itemsize > 2 else np.float32)
    elif array.itemsize < 4:
        array = array.astype(np.float32)
    codec = getattr(importlib.import_module(module), name)

    def decode(stream: bytes) -> Array:
        out = np.empty_like(array)
        decoded = codec(**fixed, **knob(1.0)).decode(np.frombuffer(stream, np.uint8), out=out)
        return layout.restore(np.asarray(decoded))

    words = [str(value) for key, value in fixed.items() if key != "non_finite"]
    return Form(
        name=" ".join([*words, layout.name]),
        settings=knob,
        encode=lambda settings: np.asarray(codec(**fixed, **settings).encode(array)).tobytes(),
        decode=decode,
    )


def _bound(name: str, array: Array, most: float) -> Callable[[float], Settings]:
    """An error bound: at x = 1 `most` times the range of the values, decades below it at x = 0."""
    span = (float(array.max()) - float(array.min())) or 1.0
    return lambda x: {name: most * span * 10.0 ** (DECADES * (x - 1))}


def _bits(name: str) -> Callable[[float], Settings]:
    """Bits a value: 16 at x = 0, at x = 1 far below what any ratio measured asks for."""
    return lambda x: {name: 16 * 10.0 ** (-BIT_DECADES * x)}


def _sperr(array: Array) -> Iterator[Form]:
    for layout in layouts(array, 2, 3):
        yield _wasm("numcodecs_wasm_sperr", "Sperr", layout, {"mode": "q"}, _bound("q", array, 4))
        yield _wasm("numcodecs_wasm_sperr", "Sperr", layout, {"mode": "bpp"}, _bits("bpp"))


def _sz3(array: Array) -> Iterator[Form]:
    for layout in layouts(array, 1, 4):
        for predictor in SZ3_PREDICTORS:
            fixed = {"eb_mode": "abs", "predictor": predictor}
            yield _wasm("numcodecs_wasm_sz3", "Sz3", layout, fixed, _bound("eb_abs", array, 1))


def _tthresh(array: Array) -> Iterator[Form]:
    for layout in layouts(array, 3, 5):
        yield _wasm(
            "numcodecs_wasm_tthresh", "Tthresh", layout, {"eb_mode": "rmse"}, _bound("eb_rmse", array, 1)
        )


def _zfp(array: Array) -> Iterator[Form]:
    def precision(x: float) -> Settings:
        return {"precision": round(1 + 31 * (1 - x))}

    knobs = {
        "fixed-accuracy": _bound("tolerance", array, 8),
        "fixed-precision": precision,
        "fixed-rate": _bits("rate"),
    }
    for layout in layouts(array, 1, 4):
        for mode, knob in knobs.items():
            fixed = {"mode": mode, "non_finite": "deny"}
            yield _wasm("numcodecs_wasm_zfp", "Zfp", layout, fixed, knob)


# ------------------------------------------------------------------------------------- HEVC


def _hevc(array: Array) -> Iterator[Form]:
    """x265 on the slices along the leading axes, in grey of the fewest bits that hold the range."""
    if array.dtype.kind not in "iu":
        raise UnsuitableError(f"stores integers, the array holds {array.dtype}")
    for layout in layouts(array, 3, 3):
        yield _hevc_form(layout)


def _hevc_form(layout: Layout) -> Form:
    import av

    array = frames = layout.array
    low, span = float(array.min()), (float(array.max()) - float(array.min())) or 1.0
    bits = next((bits for bits in (8, 10, 12) if span < 2**bits), 12)
    scale = min(1.0, (2**bits - 1) / span)  # one unit a grey level where the range allows
    pixels = "gray" if bits == 8 else f"gray{bits}le"
    if pixels not in [each.name for each in av.codec.Codec("libx265", "w").video_formats or ()]:
        raise UnsuitableError(f"this build of x265 stores no {bits} bits of grey")
    grey = np.rint((frames.astype(np.float64) - low) * scale).astype(np.uint8 if bits == 8 else np.uint16)

    def encode(settings: Settings) -> bytes:
        context = av.CodecContext.create("libx265", "w")
        context.height, context.width = grey.shape[1:]
        context.pix_fmt, context.time_base, context.framerate = pixels, Fraction(1, 25), Fraction(25)
        context.thread_count = 1
        context.options = {
            "crf": f"{settings['crf']:.3f}",
            "preset": settings["preset"],
            # One key frame and no text about the encoder: at these ratios both would show.
            "x265-params": "log-level=none:info=0:keyint=-1:pools=1:frame-threads=1",
        }
        packets = []
        for number, image in enumerate(grey):
            frame = av.VideoFrame.from_ndarray(image, format=pixels)
            frame.pts = number
            packets += context.encode(frame)
        packets += context.encode(None)
        return b"".join(bytes(packet) for packet in packets)

    def decode(stream: bytes) -> Array:
        context = av.CodecContext.create("hevc", "r")
        images = []
        for packet in [*context.parse(stream), *context.parse(b""), None]:
            images += [frame.to_ndarray() for frame in context.decode(packet)]
        return layout.restore(np.stack(images).astype(np.float64) / scale + low)

    return Form(f"{bits} bits {layout.name}", lambda x: {"crf": 51 * x, "preset": "slow"}, encode, decode)


@dataclass(frozen=True)
class Peer:
    """A codec to compare with: the distribution that holds it, and its forms for an array."""

    package: str
    forms: Callable[[Array], Iterator[Form]]


PEERS = {
    "SPERR": Peer("numcodecs-wasm-sperr", _sperr),
    "SZ3": Peer("numcodecs-wasm-sz3", _sz3),
    "TTHRESH": Peer("numcodecs-wasm-tthresh", _tthresh),
    "ZFP": Peer("numcodecs-wasm-zfp", _zfp),
    "HEVC": Peer("av", _hevc),
}
