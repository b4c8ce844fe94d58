"""What a dictionary tells an encoder, beside its entries."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from moec_zarr.dictionary import Dictionary

__all__ = ["Advice", "read_advice"]

_NETWORKS_LOST, _FITS_LOST, _FITS_WON, _NO_SEARCH, _FITTED = 1, 2, 4, 8, 16
_STEP_UNIT = 8  # parts of an octave in which a step over a bound is written
_GAIN_UNIT = 20  # parts of a dB in which gains are written
_ADVICE = struct.Struct("<BbB")
_OLDEST = 2  # bytes, without the gain
_UNKNOWN, _NO_GAIN = -128, 255
_MOST_GAIN = (_NO_GAIN - 1) / _GAIN_UNIT  # dB


@dataclass(frozen=True)
class Advice:
    """What was found on the chunks that a dictionary was trained on.

    Attributes
    ----------
    networks_lost : bool
        No network was the best candidate.
    fits_lost, fits_won : bool
        Under a bound, values that are rounded took clearly fewer bytes than any fit, or clearly more. Under a
        ratio only the former is told: all chunks were closer rounded, or exact, than fitted.
    no_search : bool
        Bases are not searched even where none of the dictionary suits.
    fitted : bool
        Nothing was stored exactly.
    step : float or None
        The step over the bound that took the fewest bytes, where it was about the same for all.
    own_experts : float or None
        dB that linear experts of a chunk's own gained in the mean, net of their bytes; not known where None.
    """

    networks_lost: bool = False
    fits_lost: bool = False
    fits_won: bool = False
    no_search: bool = False
    fitted: bool = False
    step: float | None = None
    own_experts: float | None = None

    def write(self) -> bytes:
        """Write it as it stands in a dictionary."""
        flags = _NETWORKS_LOST * self.networks_lost | _FITS_LOST * self.fits_lost
        flags |= _FITS_WON * self.fits_won | _NO_SEARCH * self.no_search | _FITTED * self.fitted
        octaves = _UNKNOWN if self.step is None else round(_STEP_UNIT * math.log2(self.step))
        gain = _NO_GAIN if self.own_experts is None else round(_GAIN_UNIT * min(self.own_experts, _MOST_GAIN))
        return _ADVICE.pack(flags, min(max(octaves, _UNKNOWN), 127), gain)


def read_advice(dictionary: Dictionary | None) -> Advice:
    """Return the advice of a dictionary; none where there is no dictionary.

    Advice of an older version says nothing of experts; what a newer one says further is passed over.
    """
    if dictionary is None or len(dictionary.advice) < _OLDEST:
        return Advice()
    known = dictionary.advice[: _ADVICE.size].ljust(_ADVICE.size, bytes([_NO_GAIN]))
    flags, octaves, gain = _ADVICE.unpack(known)
    step = None if octaves == _UNKNOWN else 2.0 ** (octaves / _STEP_UNIT)
    return Advice(
        bool(flags & _NETWORKS_LOST), bool(flags & _FITS_LOST), bool(flags & _FITS_WON),
        bool(flags & _NO_SEARCH), bool(flags & _FITTED), step,
        None if gain == _NO_GAIN else gain / _GAIN_UNIT,
    )  # fmt: skip
