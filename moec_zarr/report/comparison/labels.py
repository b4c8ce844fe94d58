"""What a person reads beside a picture: names, units, and places by their coordinates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moec_zarr.adapters.tree import local_name
from moec_zarr.adapters.zarr_groups import axes_of
from moec_zarr.arrays import Array
from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.alignment import decode_times
from moec_zarr.settings import Settings

__all__ = [
    "PATH",
    "Axis",
    "axis_of",
    "bytes_text",
    "clean",
    "decibel_text",
    "figure_text",
    "name_of",
    "power_of_ten",
    "settings_text",
    "units_of",
    "with_places",
    "with_units",
]

_LONGEST = 80  # characters of a name from a store
PATH = 200
"""Characters of a path from a store, whose end tells most."""

_MIDNIGHT = " 00:00:00"  # ends the text of a day in a calendar of cftime's
_SECONDS = re.compile(r"(\d\d:\d\d):00$")
_REGULAR = 1e-3  # of a step, by which the steps of an even coordinate may differ
_DEGREES = ("degree", "degrees", "deg")


def clean(text: object, longest: int = _LONGEST) -> str:
    """Put text from a store on one line, of a bounded length, with no characters that do not print."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * longest])
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def with_units(text: str, units: str) -> str:
    """Return a name or a figure followed by its units in brackets, where it has some."""
    return f"{text} ({units})" if units else text


def units_of(array: Any) -> str:
    """Return the units of an array of xarray; empty where it has none."""
    units = clean(getattr(array, "attrs", {}).get("units", ""))
    return "" if units == "1" else units


def name_of(array: Any, name: str = "") -> str:
    """Return the long name of an array of xarray, or else `name`, or its own; empty where it has none."""
    attributes: Mapping[Any, Any] = getattr(array, "attrs", {})
    title = attributes.get("long_name") or attributes.get("standard_name")
    return clean(title) if title else clean(name or getattr(array, "name", None) or "", PATH)


def bytes_text(count: float | None) -> str:
    """Write bytes in decimal units of three digits."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"


def settings_text(settings: Settings) -> str:
    """Parameters of a codec, the bytes of its dictionary in place of the text."""
    shown = settings.configuration()
    if settings.dictionary_bytes:
        shown["dictionary"] = bytes_text(settings.dictionary_bytes)
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def figure_text(value: float | None, digits: int = 3) -> str:
    """Return a figure of so many digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 1e3 <= abs(value) < 1e6:
        return f"{float(f'{value:.{digits}g}'):.10g}".replace("-", "−")
    mantissa, _, exponent = f"{value:.{digits}g}".replace("-", "−").partition("e")
    return f"{mantissa} × {_power(int(exponent.replace('−', '-')))}" if exponent else mantissa


def decibel_text(value: float | None) -> str:
    """Write a PSNR; a dash where there is none."""
    if value is None:
        return "–"
    return "exact" if value == math.inf else f"{value:.1f} dB".replace("-", "−")


def power_of_ten(values: Array) -> tuple[float, str]:
    """Return a power of ten to divide values by so that they print in few digits, and its name for the units.

    It is 1, with an empty name, where the largest magnitude lies between 0.001 and 99,999.
    """
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    if largest == 0 or 1e-3 <= largest < 1e5:
        return 1.0, ""
    exponent = 3 * math.floor(math.log10(largest) / 3)
    return 10.0**exponent, _power(exponent)


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A dimension of an array, and where its voxels lie.

    Attributes
    ----------
    dim, title, units : str
        Name of the dimension in its group, name to show, and units of the coordinate.
    length : int
        Number of voxels.
    values : array or None
        The coordinate of each voxel; times are decoded. None without a coordinate.
    downward : bool
        Whether the coordinate says that it grows downwards, as depth does.
    start, stride : int
        Index of the first voxel in the whole array, and from one to the next, where these are some of it.
    """

    dim: str
    title: str
    units: str
    length: int
    values: Array | None
    downward: bool = False
    start: int = 0
    stride: int = 1

    @property
    def step(self) -> float | None:
        """The step of an even coordinate of numbers, or of indices without one; None where it is uneven."""
        if self.values is None:
            return float(self.stride)
        if self.values.dtype.kind not in "iuf" or self.length < 2:
            return None
        steps = np.diff(self.values.astype(np.float64))
        mean = float(steps.mean())
        even = mean != 0 and np.isfinite(steps).all() and np.abs(steps - mean).max() <= _REGULAR * abs(mean)
        return mean if even else None

    @property
    def name(self) -> str:
        """Title and units."""
        if self.values is None:
            return f"{self.title} (index)"
        return with_units(self.title, self.units)

    def place(self, index: int) -> str:
        """Say where a voxel lies, without the name of the dimension: ``625 m``, ``2000-01-01``."""
        if self.values is None:
            return f"index {self.start + self.stride * index}"
        value = self.values[index]
        if self.values.dtype.kind in "iuf":
            number = float(value)
            whole = number.is_integer() and abs(number) < 1e9
            text = f"{number:.0f}".replace("-", "−") if whole else figure_text(number, 6)
            return f"{text} {self.units}".strip()
        if self.values.dtype.kind == "M":
            return str(np.datetime_as_string(value, unit="D" if self._whole_days else "m")).replace("T", " ")
        text = clean(value)
        return text.removesuffix(_MIDNIGHT) if self._whole_days else _SECONDS.sub(r"\1", text)

    @cached_property
    def _whole_days(self) -> bool:
        """Whether no time of the coordinate is another one than midnight."""
        assert self.values is not None
        if self.values.dtype.kind == "M":
            return bool((self.values == self.values.astype("M8[D]")).all())
        return all(str(value).endswith(_MIDNIGHT) for value in self.values)

    def span(self, part: slice) -> str:
        """Say where the voxels of a part lie: ``625 m to 1250 m``."""
        first, last = self.place(part.start), self.place(part.stop - 1)
        return f"{first} to {last}" if part.stop - part.start > 1 else first

    def at(self, index: int) -> str:
        """Say where a voxel lies: ``height 625 m``."""
        return f"{self.title} {self.place(index)}"

    def comparable(self, other: Axis) -> bool:
        """Say whether a step along this axis may be drawn as long as an equal one along the other."""
        if (self.values is None) != (other.values is None):
            return False
        mine, its = ("degrees" if u.split("_")[0] in _DEGREES else u for u in (self.units, other.units))
        return mine == its and self.step is not None and other.step is not None


def axis_of(array: Any, position: int) -> Axis:
    """Return the axis of an array at a position; of an array that is not xarray's it has no coordinate.

    Only one-dimensional coordinates named like the dimension are used; their values are read.
    """
    length = array.shape[position]
    dims = getattr(array, "dims", None)
    if dims is None:
        return Axis(dim=f"axis {position}", title=f"axis {position}", units="", length=length, values=None)
    dim, local = dims[position], local_name(dims[position])
    if dim not in array.coords or array.coords[dim].dims != (dim,):
        return Axis(dim=local, title=clean(local), units="", length=length, values=None)
    coordinate = array.coords[dim]
    values, units = np.asarray(coordinate.values), units_of(coordinate)
    if " since " in units:
        values, units = _times(coordinate), ""
    return Axis(
        dim=local,
        title=name_of(coordinate, local),
        units=units,
        length=length,
        values=values,
        downward=str(coordinate.attrs.get("positive", "")).lower() == "down",
    )


def with_places(array: Any) -> Any:
    """Return an array of a tree with coordinates where the metadata of an image say where its voxels lie."""
    known = axes_of(array.variable)
    found = {}
    for axis, dim, length in zip(known, array.dims[: len(known)], array.shape, strict=False):
        if axis.step is not None and (axis.units or axis.type == "space"):
            places = axis.start + axis.step * np.arange(length)
            # Rows of an image go down.
            attrs = {"units": axis.units} | ({"positive": "down"} if axis.type == "space" else {})
            found[dim] = (dim, places, attrs)
    return array.assign_coords(found)


def _times(coordinate: Any) -> Array:
    """Return the times that are counted by numbers; the numbers as text if they cannot be read so."""
    try:
        return np.asarray(decode_times(coordinate).values)
    except MoECError:
        return np.array([f"{value} {units_of(coordinate)}" for value in coordinate.values], dtype=object)
