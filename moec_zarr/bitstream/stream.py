"""A stream taken apart into all that decoding needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.bitstream.coefficients import read_coefficients
from moec_zarr.bitstream.container import Header, Section, read_stream
from moec_zarr.bitstream.exact import read_exact
from moec_zarr.bitstream.linear_experts import read_linear_experts
from moec_zarr.bitstream.network import read_network
from moec_zarr.bitstream.residual import read_residual
from moec_zarr.bitstream.scale import Scaled, read_scale
from moec_zarr.bitstream.shared import expand
from moec_zarr.bitstream.values import (
    BoundingBox,
    MaskedValue,
    find_missing,
    read_bounding_box,
    read_exact_values,
    read_lossless,
    read_masked_values,
)
from moec_zarr.config import config
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.linear_experts import LinearExperts
from moec_zarr.model.network import Network
from moec_zarr.model.normalisation import Limits
from moec_zarr.model.residual import Residual

__all__ = ["Stream", "check_header", "check_size", "open_stream"]


@dataclass(frozen=True)
class Stream:
    """The parts of a stream; nothing is evaluated yet.

    Attributes
    ----------
    header : Header
    bounding_box : BoundingBox or None
    masked_values : list of MaskedValue
    values : array or None
        All values of the bounding box, where they are stored themselves.
    network : Network or None
    coefficients : Coefficients or None
    linear_experts : LinearExperts or None
        What restores the transform.
    residual : Residual or None
        Corrections with which a bound on the error is kept.
    scaled : Scaled or None
        The logarithmic scale that was fitted, and signs.
    exact_values : list of MaskedValue
        Valid values that are kept exactly.
    bounds : pair of float
        On the absolute and the relative error of values that are stored rounded; 0 for none.
    sections : dict of str to int
        Bytes of the header and of each section's payload, without those of a dictionary.
    """

    header: Header
    bounding_box: BoundingBox | None
    masked_values: list[MaskedValue]
    values: Array | None
    network: Network | None
    coefficients: Coefficients | None
    linear_experts: LinearExperts | None
    residual: Residual | None
    scaled: Scaled | None
    exact_values: list[MaskedValue]
    bounds: tuple[float, float]
    sections: dict[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the bounding box, or of the chunk where there is none."""
        return self.header.shape if self.bounding_box is None else self.bounding_box.shape

    @property
    def limits(self) -> Limits:
        """What the values that are not masked are restored to."""
        low, high = self.header.low, self.header.high
        scale = None if self.scaled is None else self.scaled.scale
        return Limits(low, high, find_missing(self.masked_values, low, high), scale)


def check_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a chunk of more bytes than ``config largest``, whose shape no reader may know.

    Raises
    ------
    MoECError
        If it has more.
    """
    nbytes, largest = math.prod(shape) * dtype.itemsize, int(config.get("largest"))
    if nbytes > largest:
        raise MoECError(
            f"a chunk of shape {shape} and dtype {dtype} has {nbytes} bytes; at most {largest} are accepted "
            "where a reader knows no shape but the stream's (zarr format 2, numcodecs, inspect). Use smaller "
            "chunks, zarr format 3, or a larger moec_zarr.config 'largest'"
        )


def check_header(header: Header, shape: tuple[int, ...] | None) -> None:
    """Refuse a stream of another shape than `shape`, or too large a one where that is None.

    Raises
    ------
    CorruptStreamError, MoECError
        As `open_stream` does.
    """
    if shape is None:
        check_size(header.shape, header.dtype)
    elif tuple(shape) != header.shape:
        raise CorruptStreamError(f"the stream holds shape {header.shape}, expected {tuple(shape)}")


def open_stream(
    data: bytes, shape: tuple[int, ...] | None = None, dictionary: Dictionary | None = None
) -> Stream:
    """Take a stream apart.

    Raises
    ------
    DictionaryError
        If it takes entries of another dictionary than this one.
    CorruptStreamError, UnsupportedVersionError
        If it cannot be read, or holds another shape than `shape`; before anything of the declared
        shape is allocated.
    MoECError
        If `shape` is not given and the stream declares more bytes than ``config largest``.
    """
    header, held = read_stream(data)
    check_header(header, shape)
    sections, taken = expand(held, dictionary)
    fitted = {Section.MODEL, Section.RESIDUAL, Section.TRANSFORM}
    if Section.SCALE in sections and not sections.keys() & fitted:
        raise CorruptStreamError("the stream holds a scale of nothing; it is damaged")
    if Section.LINEAR_EXPERTS in sections and Section.TRANSFORM not in sections:
        raise CorruptStreamError("the stream holds experts that restore nothing; it is damaged")
    stored = sections.keys() & {Section.LOSSLESS, Section.INTEGERS}
    if len(stored) > 1 or (stored and sections.keys() & {*fitted, Section.EXACT}):
        raise CorruptStreamError("the stream holds the values more than once; it is damaged")
    box, values, network, coefficients, experts, residual, scaled = (None,) * 7
    bounds = 0.0, 0.0
    masked: list[MaskedValue] = []
    exact: list[MaskedValue] = []
    if Section.BOX in sections:
        box = read_bounding_box(sections[Section.BOX], header.shape, header.dtype)
    shape = header.shape if box is None else box.shape
    if 0 in shape and sections.keys() & fitted:
        raise CorruptStreamError(f"the stream holds a model of no voxels, of shape {shape}; it is damaged")
    grid = tuple(n for n in shape if n > 1)
    if Section.MASK in sections:
        masked = read_masked_values(sections[Section.MASK], shape, header.dtype)
    if Section.LOSSLESS in sections:
        values = read_lossless(sections[Section.LOSSLESS], shape, header.dtype)
    if Section.INTEGERS in sections:
        valid = ~np.logical_or.reduce([each.mask for each in masked]) if masked else None
        payload, low, high = sections[Section.INTEGERS], header.low, header.high
        values, bounds = read_exact(payload, shape, header.dtype, valid, low, high)
    if Section.MODEL in sections:
        network = read_network(
            sections[Section.MODEL],
            len(grid),
            Section.TRANSFORM in sections,
            taken=taken.get(Section.MODEL, 0),
        )
    if Section.TRANSFORM in sections:
        coefficients = read_coefficients(
            sections[Section.TRANSFORM], grid, taken=taken.get(Section.TRANSFORM, 0)
        )
    if Section.LINEAR_EXPERTS in sections:
        experts = read_linear_experts(
            sections[Section.LINEAR_EXPERTS], len(grid), taken=taken.get(Section.LINEAR_EXPERTS, 0)
        )
    if Section.RESIDUAL in sections:
        residual = read_residual(sections[Section.RESIDUAL], grid, taken=taken.get(Section.RESIDUAL, 0))
    if Section.SCALE in sections:
        scaled = read_scale(sections[Section.SCALE], shape, header.dtype)
    if Section.EXACT in sections:
        exact = read_exact_values(sections[Section.EXACT], shape, header.dtype)
    lengths = {section.name.lower(): len(held.get(section, b"")) for section in sorted({*sections, *held})}
    lengths = {"header": len(data) - sum(lengths.values())} | lengths
    return Stream(
        header, box, masked, values, network, coefficients, experts, residual, scaled, exact, bounds, lengths
    )
