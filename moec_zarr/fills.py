"""Values that stand for missing ones without anybody having said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Doubles
from moec_zarr.statistics import valid_voxels

__all__ = ["Suspect", "find_suspect", "remedy"]

# Where they come from. Most programs write the first; models and file formats have the others.
_KNOWN_FLOATS: dict[float, str] = {
    9.969209968386869e36: "NetCDF's default fill value",
    1e20: "the missing value of CMIP",
    9.999e20: "a missing value of GrADS and NCEP",
    -9.99e8: "the undefined value of GrADS",
    1e15: "the missing value of GEOS and MERRA",
    1e30: "a common fill value",
    1e34: "a common fill value",
    -1e34: "the missing value of Ferret",
    1e35: "the fill value of NCL and WRF",
    1e36: "the special value of CESM",
    1e37: "the fill value of ROMS",
    3.4028234663852886e38: "the largest float32, a fill value of GIS",
    -3.4028234663852886e38: "the smallest float32, the no-data value of GIS",
    1.7976931348623157e308: "the largest float64, a fill value of GIS",
    -1.7976931348623157e308: "the smallest float64, the no-data value of GIS",
    -32767.0: "NetCDF's default fill value of short integers",
    -32768.0: "the smallest short integer",
    **dict.fromkeys((-999.0, -999.9, -9999.0, -99999.0, -999999.0), "a common missing value"),
}  # fmt: skip
_KNOWN_INTEGERS: dict[int, str] = {
    **dict.fromkeys((-(2**15) + 1, -(2**31) + 1, -(2**63) + 2), "NetCDF's default fill value"),
    **dict.fromkeys((-(2**15), -(2**31), -(2**63)), "the smallest value of its dtype"),
    **dict.fromkeys((-999, -9999, -99999, -999999), "a common missing value"),
}
_LOOKED_AT = 2**14  # values, besides the two ends
_CANDIDATES = 32  # the outermost different values on either side among which the gap is looked for
_NEAR = 0.05  # gap, over the range of all other values, above which a known fill value is none of them
_APART = 0.5  # the same of a value that is not known and repeats
_PEAK = 100.0  # the same of a value that stands alone
_VARIED = 32  # different values that a field has at least
_REPEATS = 1e-4  # share of all values
_LARGEST = float(np.finfo("f4").max)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A value that stands apart from all others of an array.

    Attributes
    ----------
    value : numpy scalar
        The value, in the dtype of the array: its text is the shortest that means it there.
    count, n : int
        How often it occurs among `n` values.
    low, high : float
        Smallest and largest of the others.
    origin : str
        Whose fill value it is; empty if it is not a known one.
    """

    value: np.generic
    count: int
    n: int
    low: float
    high: float
    origin: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it is a fill value that programs are known to write."""
        return bool(self.origin)

    def __str__(self) -> str:
        text = str(self.value)
        whose = f", {self.origin}," if self.origin else ""
        often = f"{self.count} of {self.n} values are {text}" if self.count > 1 else f"one value is {text}"
        return f"{often}{whose} and the others lie in {self.low:.6g} to {self.high:.6g}"


def find_suspect(values: Array, missing: float | None = None) -> Suspect | None:
    """Find a value that seems to stand for missing ones, or a peak that would spoil a fit.

    It is the largest or the smallest value, and either a known fill value apart from all others, a value
    that repeats exactly and is further from the others than half of their range, or a peak further away
    than a hundred times that range.

    Parameters
    ----------
    values : array of integers or floats
        Of any shape. NaN and infinities do not count.
    missing : float, optional
        A sentinel that does not count either.

    Returns
    -------
    Suspect or None
    """
    flat = values.reshape(-1)
    valid = valid_voxels(flat, missing)
    flat = flat if valid.all() else flat[valid]
    if flat.size < 2:
        return None
    ends = flat.min(), flat.max()
    if ends[0] == ends[1]:
        return None
    # An odd step does not stay within one column of a grid.
    step = max(1, flat.size // _LOOKED_AT) | 1
    different = np.unique(np.append(flat[::step], ends))
    for known in (True, False):  # one of them may hide behind a peak of another kind
        for side in (1, -1):
            suspect = _outermost(flat, different[::side], known)
            if suspect is not None:
                return suspect
    return None


def remedy(suspect: Suspect, name: str = "") -> str:
    """Say what to do about a fill value, in the variable of a name if there is one."""
    option = f"--var {name}:missing={suspect.value!s}" if name else f"--missing {suspect.value!s}"
    return (
        "It would be fitted as if it were data; say that it stands for missing values, which are kept "
        f"exactly: {option}, or MoECCodec(missing={suspect.value!s}). Where "
        "several do, make them NaN first, or declare them in its attribute missing_value"
    )


def _outermost(flat: Array, different: Array, known: bool) -> Suspect | None:
    """Return what the last of the sorted values is, if it is suspicious."""
    value = different[-1]
    origin = _origin(value)
    if known != bool(origin):
        return None
    gap, spread = _gaps(different)
    varied = different.size > _VARIED
    if known:
        # The ends of a dtype may be meant: only in a field they are not.
        is_end = flat.dtype.kind == "i" and value == np.iinfo(flat.dtype).min
        is_end |= flat.dtype.kind == "f" and abs(float(value)) >= _LARGEST
        apart = gap[-1] > _NEAR * spread[-1] and (varied or not is_end)
        least = 1.0 if gap[-1] > spread[-1] else 2.0
    else:
        # Several peaks may stand together, so that the gap lies further in.
        peak = varied and bool((gap / _PEAK > spread).any())
        apart = peak or (varied and gap[-1] > _APART * spread[-1])
        least = 1.0 if peak else max(2.0, _REPEATS * flat.size)
    if not apart:
        return None
    stands = flat == value
    count = int(np.count_nonzero(stands))
    if count < least:
        return None
    others = flat[~stands]
    return Suspect(
        value=value,
        count=count,
        n=flat.size,
        low=float(others.min()),
        high=float(others.max()),
        origin=origin,
    )


def _gaps(different: Array) -> tuple[Doubles, Doubles]:
    """Return the gaps before the last values, and the range of all that lie before each gap."""
    outer = different[-_CANDIDATES - 1 :] if different.size > _CANDIDATES else different
    half = outer.astype(np.float64) / 2  # differences of the largest doubles are infinite
    first = float(different[0]) / 2
    return np.abs(np.diff(half)), np.abs(half[:-1] - first)


def _origin(value: Any) -> str:
    """Return whose fill value a value is; empty for none."""
    if value.dtype.kind in "iu":
        return _KNOWN_INTEGERS.get(int(value), "") if value.dtype.kind == "i" else ""
    if (name := _KNOWN_FLOATS.get(float(value))) is not None:
        return name
    # As float32 has it, also where it was widened since.
    return _FLOAT32.get(float(value), "")


with np.errstate(over="ignore"):
    _FLOAT32 = {float(np.float32(value)): name for value, name in _KNOWN_FLOATS.items()}
