"""A chunk made ready for its fit: checked, and relieved of what is kept exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from moec_zarr.arrays import Array, Bools
from moec_zarr.bitstream.container import (
    DTYPES,
    MAX_RANK,
    MAX_SIZE,
    Header,
    Section,
    is_storable,
    write_stream,
)
from moec_zarr.bitstream.masks import write_mask
from moec_zarr.bitstream.scale import Scaled, write_scale
from moec_zarr.bitstream.shared import split_sections, write_shared
from moec_zarr.bitstream.values import (
    BoundingBox,
    MaskedValue,
    find_missing,
    write_bounding_box,
    write_masked_values,
)
from moec_zarr.codec.indexing import short_axes
from moec_zarr.codec.refit import is_refit
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import UnsupportedArrayError
from moec_zarr.fit.field import Field
from moec_zarr.model.normalisation import Limits, Normalisation
from moec_zarr.model.scale import to_scale

__all__ = [
    "Prepared",
    "as_sentinel",
    "check_dtype",
    "find_bounding_box",
    "find_masked_values",
    "keep_exactly",
    "prepare",
]

_WORTH_A_BOX = 16  # voxels outside it at least; fewer are not worth its bytes


@dataclass(frozen=True)
class Prepared:
    """A chunk made ready for its fit.

    Attributes
    ----------
    header : Header
        With the quality of an exact stream.
    sections : dict of Section to bytes
        Bounding box and masked values, where there are any.
    array : array
        The values within the bounding box.
    valid : bool array of the same shape, or None
        Which of them are fitted; all where None.
    missing : scalar or None
        The sentinel, where it lies within the range of the valid values: none of these may decode to it.
    scaled : Scaled or None
        The logarithmic scale on which values are fitted, and signs.
    exact : tuple of MaskedValue
        Valid values that are kept exactly, and are not fitted.
    dictionary : Dictionary or None
        What sections may begin with.
    """

    header: Header
    sections: dict[Section, bytes]
    array: Array
    valid: Bools | None
    missing: Any
    scaled: Scaled | None = None
    exact: tuple[MaskedValue, ...] = ()
    dictionary: Dictionary | None = None

    @property
    def limits(self) -> Limits:
        """What decoded values are restored to."""
        scale = None if self.scaled is None else self.scaled.scale
        return Limits(self.header.low, self.header.high, self.missing, scale)

    @property
    def is_constant(self) -> bool:
        """Whether all valid values are one and the same."""
        return bool(self.header.low == self.header.high)

    def kept(self, psnr: float = math.inf, error: float = 0.0) -> dict[Section, bytes]:
        """Return the sections that stand beside those that are fitted, with the quality on the scale."""
        sections = dict(self.sections)
        if self.exact:
            sections[Section.EXACT] = write_masked_values(self.exact, self.header.dtype)
        if self.scaled is not None:
            scaled = replace(self.scaled, psnr=psnr, error=error)
            sections[Section.SCALE] = write_scale(scaled, self._signs)
        return sections

    def write(
        self, sections: Mapping[Section, bytes], header: Header | None = None, taken: Iterable[int] = ()
    ) -> bytes:
        """Write a stream of sections, shorter by the entries that they begin with.

        Parameters
        ----------
        sections : mapping of Section to bytes
            Whole, but for the entries `taken`.
        header : Header, optional
            The chunk's own by default.
        taken : iterable of int
            Numbers of entries that are left out already.
        """
        header = self.header if header is None else header
        own, others = split_sections(sections, self.dictionary)
        numbers = (*taken, *others)
        if self.dictionary is None or not numbers:
            return write_stream(header, sections)
        shared = write_stream(header, own | {Section.SHARED: write_shared(self.dictionary, numbers)})
        return shared if taken else min(write_stream(header, sections), shared, key=len)

    def reserve(self) -> int:
        """Return bytes of a stream beside what is fitted, with those that say that it takes an entry."""
        return len(self.write(self.kept(), taken=(0,)))

    @cached_property
    def _signs(self) -> bytes:
        return b"" if self.scaled is None or self.scaled.signs is None else write_mask(self.scaled.signs)

    @property
    def valid_values(self) -> Array:
        """The valid values, along one axis."""
        return self.array.reshape(-1) if self.valid is None else self.array[self.valid]

    @cached_property
    def fitted(self) -> Bools | None:
        """Which values are fitted; all where None."""
        others = _valid(self.exact)
        if others is None or self.valid is None:
            return self.valid if others is None else others
        return self.valid & others

    @cached_property
    def squeezed(self) -> Prepared:
        """The same on the axes longer than one, which fits and models have."""
        axes = short_axes(self.array.shape)

        def squeeze(mask: Bools | None) -> Bools | None:
            return None if mask is None else mask.squeeze(axes)

        return replace(
            self,
            array=self.array.squeeze(axes),
            valid=squeeze(self.valid),
            scaled=None if self.scaled is None else replace(self.scaled, signs=squeeze(self.scaled.signs)),
            exact=tuple(MaskedValue(each.value, each.mask.squeeze(axes)) for each in self.exact),
        )

    @cached_property
    def field(self) -> Field:
        """What is fitted: the valid voxels and their normalisation, on the axes longer than one."""
        own = self.squeezed
        if own.scaled is None:
            normalisation = Normalisation.of_range(self.header.low, self.header.high)
            return Field(own.array, own.fitted, normalisation)
        scale = own.scaled.scale
        return Field(to_scale(own.array, scale.knee), own.fitted, Normalisation(scale.centre, scale.half))

    def restore(self, tile: tuple[slice, ...], values: Array) -> Array:
        """Return fitted values of a tile as a decoder does."""
        restored = self.limits.restore(values, self.array.dtype)
        return self.complete(tile, restored)

    def complete(self, tile: tuple[slice, ...], restored: Array) -> Array:
        """Return restored values of a tile with signs, and with those that are kept exactly."""
        if self.scaled is None and not self.exact:
            return restored
        complete = np.array(np.broadcast_to(restored, self.array[tile].shape))
        if self.scaled is not None:
            self.limits.complete(complete, None if self.scaled.signs is None else self.scaled.signs[tile])
        for each in self.exact:
            complete[each.mask[tile]] = each.value
        return complete


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype, if it can be encoded.

    Raises
    ------
    UnsupportedArrayError
        If it is not an integer or float dtype of 8 to 64 bits.
    """
    dtype = np.dtype(dtype)
    if dtype.str[1:] in DTYPES:
        return dtype
    remedy = {
        "b": "store it as uint8 with a lossless codec",
        "c": "store its real and imaginary parts as two float arrays",
        "M": "store it with a lossless codec, as xarray does with time coordinates",
        "m": "store it with a lossless codec, as xarray does with time coordinates",
        "f": "convert it to float64",
        "V": "store each field as an array of its own",
    }.get(dtype.kind, "store it with a lossless codec")
    raise UnsupportedArrayError(
        f"cannot encode dtype {dtype}; expected an integer or float dtype of 8 to 64 bits. Remedy: {remedy}"
    )


def prepare(array: Array, missing: Any, fill_value: Any) -> Prepared:
    """Make a chunk ready for its fit.

    Parameters
    ----------
    array : integer or float array of 0 to 5 axes
    missing : int or float, optional
        A sentinel that is kept exactly.
    fill_value : scalar, optional
        Kept exactly as well where it stands further from all other values than these do from each
        other, unless `missing` is given.

    Raises
    ------
    UnsupportedArrayError
        If the dtype or the rank cannot be encoded, or `missing` is no value of the dtype.
    """
    dtype = check_dtype(array.dtype)
    if not is_storable(array.shape):
        raise UnsupportedArrayError(
            f"cannot encode an array of shape {array.shape}; expected at most "
            f"{MAX_RANK} axes and {MAX_SIZE} elements. Remedy: merge axes, or write smaller chunks"
        )
    missing = as_sentinel(missing, dtype)
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    box = find_bounding_box(array)
    inner = array if box is None else array[tuple(slice(n) for n in box.shape)]
    masked = find_masked_values(inner, missing)
    if missing is None and (fill := _isolated_fill(inner, _valid(masked), fill_value)) is not None:
        masked = find_masked_values(inner, fill)
    valid = _valid(masked)
    low, high = _valid_range(inner, valid)
    if missing is not None and low < missing < high and all(each.value != missing for each in masked):
        # It stands nowhere: a reader must know it all the same.
        masked.append(MaskedValue(missing, np.broadcast_to(np.False_, inner.shape)))
    header = Header(
        dtype=dtype,
        order=order,
        shape=array.shape,
        low=low,
        high=high,
        psnr=math.inf,
        max_error=0.0,
        refit=is_refit(array),
    )
    sections = {}
    if box is not None:
        sections[Section.BOX] = write_bounding_box(box, dtype)
    if masked:
        sections[Section.MASK] = write_masked_values(masked, dtype)
    return Prepared(header, sections, inner, valid, find_missing(masked, low, high))


def find_bounding_box(array: Array) -> BoundingBox | None:
    """Find the smallest leading box beyond which the array is constant; None if it is all or nothing."""
    if array.size < 2:
        return None
    fill = array[(-1,) * array.ndim]
    if not any(_equal(array[(slice(None),) * axis + (-1,)], fill).all() for axis in range(array.ndim)):
        return None
    differs = ~_equal(array, fill)
    if not differs.any():
        return None
    shape = []
    for axis in range(array.ndim):
        used = np.flatnonzero(differs.any(axis=tuple(other for other in range(array.ndim) if other != axis)))
        shape.append(int(used[-1]) + 1)
    return BoundingBox(tuple(shape), fill) if array.size - math.prod(shape) >= _WORTH_A_BOX else None


def find_masked_values(array: Array, missing: Any) -> list[MaskedValue]:
    """Find NaN, infinities and `missing`, where they occur, in this order."""
    result = []
    finite = array.dtype.kind != "f" or np.isfinite(array).all()
    values = [] if finite else [np.nan, np.inf, -np.inf]
    for value in values + ([] if missing is None else [missing]):
        mask = _equal(array, array.dtype.type(value))
        if mask.any():
            result.append(MaskedValue(array.dtype.type(value), mask))
    return result


def _equal(array: Array, value: Any) -> Bools:
    return np.isnan(array) if value != value else np.asarray(array == value)


def as_sentinel(missing: Any, dtype: np.dtype[Any], name: str = "missing") -> Any:
    """Return `missing`, or what is named otherwise, as a value of a dtype.

    Raises
    ------
    UnsupportedArrayError
        If it is none.
    """
    if missing is None:
        return None
    if dtype.kind == "f":
        if abs(missing) > float(np.finfo(dtype).max):
            raise UnsupportedArrayError(
                f"{name}={missing!r} is no value of dtype {dtype}; expected at most "
                f"{np.finfo(dtype).max}. Remedy: name a value that the array may hold, or none"
            )
        return dtype.newbyteorder("=").type(missing)
    if missing != int(missing) or not np.iinfo(dtype).min <= missing <= np.iinfo(dtype).max:
        raise UnsupportedArrayError(
            f"{name}={missing!r} is no value of dtype {dtype}; expected a whole number in "
            f"[{np.iinfo(dtype).min}, {np.iinfo(dtype).max}]. Remedy: name a value that the array "
            "may hold, or none"
        )
    return dtype.newbyteorder("=").type(int(missing))


def keep_exactly(chunk: Prepared, value: Any, *, static: bool = False) -> Prepared:
    """Return a chunk in which a value is kept exactly: wherever it is valid, or where it never changes.

    Parameters
    ----------
    chunk : Prepared
    value : number
    static : bool
        Whether it is kept only at places where it stands all along the first axis.
    """
    value = chunk.header.dtype.newbyteorder("=").type(value)
    mask = np.asarray(chunk.array == value)
    if static:
        others = ~mask if chunk.valid is None else ~mask & chunk.valid
        mask = np.broadcast_to(mask.any(axis=0) & ~others.any(axis=0), mask.shape)
    elif chunk.valid is not None:
        mask &= chunk.valid
    if not mask.any():
        return chunk
    kept = (each for each in chunk.exact if each.value != value)
    return replace(chunk, exact=(*kept, MaskedValue(value, mask)))


def _isolated_fill(array: Array, valid: Bools | None, fill_value: Any) -> Any:
    """`fill_value` where it occurs among the valid values and stands apart from the others."""
    if fill_value is None or not np.isfinite(fill_value):
        return None
    fill = array.dtype.type(fill_value)
    stands = array == fill
    if not stands.any():
        return None
    others = ~stands if valid is None else valid & ~stands
    if not others.any():
        return None
    low, high = (float(end) for end in _valid_range(array, others))
    return fill if min(abs(low - float(fill)), abs(high - float(fill))) > high - low else None


def _valid(masked: Sequence[MaskedValue]) -> Bools | None:
    """Which voxels hold no masked value; None where all do."""
    return ~np.logical_or.reduce([each.mask for each in masked]) if masked else None


def _valid_range(array: Array, valid: Bools | None) -> tuple[Any, Any]:
    """Smallest and largest valid value, native byte order; zeros where there is none."""
    dtype = array.dtype.newbyteorder("=")
    if array.size == 0 or (valid is not None and not valid.any()):
        return dtype.type(0), dtype.type(0)
    if valid is None:
        return dtype.type(array.min()), dtype.type(array.max())
    top, bottom = (np.inf, -np.inf) if dtype.kind == "f" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    return dtype.type(array.min(where=valid, initial=top)), dtype.type(array.max(where=valid, initial=bottom))
