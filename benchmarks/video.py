"""Video codecs as peers: slices along the leading axes as frames of grey, of integer arrays alone.

x265 stores 8, 10 or 12 bits, SVT-AV1 8 or 10; the fewest that hold the range of the values are taken, and
values are scaled where none do. The packets alone count: no container, no range of the values. Both get a
constant rate factor, one key frame and one thread, and are tuned for PSNR.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.forms import Array, Form, Layout, UnsuitableError, layouts

# One key frame and no text about the encoder: at high ratios both would show.
X265 = "log-level=none:info=0:keyint=-1:pools=none:frame-threads=1:wpp=0"
SVT_AV1 = "lp=1:keyint=-1:tune=1"
LEAST = 64  # rows and columns of a frame


def hevc_forms(array: Array, bound: float | None) -> Iterator[Form]:
    """Yield x265, preset slow."""

    def options(x: float, bits: int) -> dict[str, str]:
        finest = -6 * (bits - 8)  # whatever the bits, this is about a level of grey
        crf = finest + x * (51 - finest)
        return {"preset": "slow", "tune": "psnr", "x265-params": f"{X265}:crf={crf:.3f}"}

    yield from _forms(array, "libx265", "hevc", {8: "gray", 10: "gray10le", 12: "gray12le"}, options)


def av1_forms(array: Array, bound: float | None) -> Iterator[Form]:
    """Yield SVT-AV1, preset 6; its colours are one value."""

    def options(x: float, bits: int) -> dict[str, str]:
        crf = round(4 * (1 + 62 * x)) / 4  # it takes quarters
        return {"preset": "6", "svtav1-params": f"{SVT_AV1}:crf={crf:g}"}

    yield from _forms(array, "libsvtav1", "libdav1d", {8: "yuv420p", 10: "yuv420p10le"}, options)


def _forms(
    array: Array, encoder: str, decoder: str, pixels: dict[int, str], options: Callable[[float, int], Any]
) -> Iterator[Form]:
    for layout in layouts(array, 3, 3):
        yield _form(layout, encoder, decoder, pixels, options)


def _form(
    layout: Layout, encoder: str, decoder: str, pixels: dict[int, str], options: Callable[[float, int], Any]
) -> Form:
    os.environ.setdefault("SVT_LOG", "0")  # it prints its settings else
    try:
        import av
    except ImportError as error:
        raise UnsuitableError("av is not installed") from error

    low, span = float(layout.array.min()), (float(layout.array.max()) - float(layout.array.min())) or 1.0
    bits = next((bits for bits in pixels if span < 2**bits), max(pixels))
    scale = min(1.0, (2**bits - 1) / span)  # one unit a grey level where the range allows
    word = np.uint8 if bits == 8 else np.uint16
    rows, columns = layout.array.shape[1:]
    more = [(0, max(LEAST, n + n % 2) - n) for n in (rows, columns)]

    def encode(x: float) -> bytes:
        grey = np.rint((layout.array.astype(np.float64) - low) * scale).astype(word)
        grey = np.pad(grey, [(0, 0), *more], mode="edge")
        context = av.CodecContext.create(encoder, "w")
        context.height, context.width = grey.shape[1:]
        context.pix_fmt, context.time_base, context.framerate = pixels[bits], Fraction(1, 25), Fraction(25)
        context.thread_count, context.options = 1, options(x, bits)
        packets = []
        for number, image in enumerate(grey):
            frame = av.VideoFrame(image.shape[1], image.shape[0], pixels[bits])
            frame.pts = number
            for plane, values in zip(frame.planes, (image, None, None), strict=False):
                line = np.full((plane.height, plane.line_size // image.itemsize), 2 ** (bits - 1), word)
                if values is not None:
                    line[:, : values.shape[1]] = values
                plane.update(line.tobytes())
            packets += context.encode(frame)
        packets += context.encode(None)
        return b"".join(bytes(packet) for packet in packets)

    def decode(stream: bytes) -> Array:
        context = av.CodecContext.create(decoder, "r")
        context.thread_count = 1
        images = []
        for packet in [*context.parse(stream), *context.parse(b""), None]:
            for frame in context.decode(packet):
                plane = frame.planes[0]
                image = np.frombuffer(plane, word).reshape(-1, plane.line_size // word().itemsize)
                images.append(image[:rows, :columns].copy())
        if math.prod((len(images), rows, columns)) != layout.array.size:
            raise ValueError(f"{decoder} gave {len(images)} frames of {len(layout.array)}")
        return layout.restore(np.stack(images).astype(np.float64) / scale + low)

    return Form(f"{bits} bits {layout.name}", encode, decode)
