"""The parameters of the codec, as they are stored in metadata."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Self

from moec_zarr.dictionary import Dictionary, parse_dictionary
from moec_zarr.errors import MoECError

__all__ = ["BOUNDS", "EFFORTS", "MODELS", "SCALES", "TARGETS", "Effort", "Model", "Scale", "Settings"]

Effort = Literal["fast", "balanced", "best"]
EFFORTS: tuple[Effort, ...] = ("fast", "balanced", "best")
Model = Literal["auto", "transform", "network"]
TARGETS = ("ratio", "psnr", "max_error", "max_relative_error")
BOUNDS = ("max_error", "max_relative_error")  # which go together
_MOST_EXACT = 4  # values that a stream keeps exactly
Scale = Literal["linear", "log"]
SCALES: tuple[Scale, ...] = ("linear", "log")
MODELS: tuple[Model, ...] = ("auto", "transform", "network")


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Target and effort of a fit: the parameters that both codecs have.

    They are validated on construction and made of plain JSON types.

    Parameters
    ----------
    ratio : float, optional
        Bytes of the array divided by bytes of its stream, at least; from 1 to 1e9. Give exactly one
        of `ratio`, `psnr` and a bound: `max_error`, `max_relative_error`, or both.
    psnr : float, optional
        Peak signal-to-noise ratio of the decoded array in dB, at least; from 0 to 400. The peak is
        the range of the valid values.
    max_error : float, optional
        Largest absolute error of any valid value of the decoded array, in units of the data. The
        smallest stream found that keeps it is stored. 0 is lossless.
    max_relative_error : float, optional
        Largest error of any valid value over its magnitude, below 1: ``|y - x| <= r |x|``. So zeros stay
        zeros, and signs stay. With `max_error` beside it, a value may be off by the larger of the two,
        ``|y - x| <= max(a, r |x|)``: magnitudes up to `max_error` may become zero. 0 is lossless.
    scale : {"linear", "log"}
        What `ratio` minimises and `psnr` measures: errors of the values, or of the logarithms of their
        magnitudes, which are relative errors. The peak of the PSNR is then the range of the logarithms;
        zeros and signs are kept exactly.
    exact : number or sequence of numbers, optional
        Up to four values, such as 0, that are kept exactly wherever they stand, whatever it costs. Without
        it a value that occurs often may be kept so, where the rest is closer or smaller for it.
    missing : int or float, optional
        A value that marks missing data. It is kept exactly, and does not take part in the fit. NaN
        and infinities are always treated so.
    effort : {"balanced", "fast", "best"}
        How long a fit may take. "fast" fits a transform only, where the array can have one.
        "balanced" also fits networks where short fits promise a gain. "best" fits all that
        "balanced" does, then more and longer.
    model : {"auto", "transform", "network"}
        What may be fitted. "auto" keeps whichever has the smallest error: a transform, a network, or
        a transform that a network corrects. "network" is the mixture of experts alone.
    experts : int, optional
        Number of experts of a network, from 1 to 256. If given, a network is fitted at any effort.
        By default the encoder derives it from the bytes that are available.
    seed : int
        Seed of everything random in a fit.
    dictionary : str, optional
        What the chunks of a variable share, as `train_dictionary` makes it: text in base64 of at most
        64 KiB. Streams that take entries of it are read with it alone.

    Raises
    ------
    MoECError
        If a value is of the wrong type or out of range, or not exactly one target is given.
    """

    ratio: float | None = None
    psnr: float | None = None
    max_error: float | None = None
    max_relative_error: float | None = None
    scale: Scale = "linear"
    exact: float | Sequence[float] | None = None
    missing: float | None = None
    effort: Effort = "balanced"
    model: Model = "auto"
    experts: int | None = None
    seed: int = 0
    dictionary: str | None = None

    def __post_init__(self) -> None:
        targets = {name: getattr(self, name) for name in TARGETS}
        given = {name for name, value in targets.items() if value is not None}
        if len(given) != 1 and given != set(BOUNDS):
            got = ", ".join(f"{name}={value!r}" for name, value in targets.items())
            raise MoECError(
                f"exactly one target is needed, got {got}; give ratio= (times smaller), psnr= (dB), "
                "max_error= (absolute, in units of the data), max_relative_error= (of each value), or both "
                "of these bounds"
            )
        self._set("ratio", _real("ratio", self.ratio, 1.0, 1e9))
        self._set("psnr", _real("psnr", self.psnr, 0.0, 400.0))
        self._set("max_error", _real("max_error", self.max_error, 0.0, sys.float_info.max))
        relative = _real("max_relative_error", self.max_relative_error, 0.0, 1.0)
        if relative == 1:
            raise MoECError(
                f"max_relative_error must lie below 1, got {self.max_relative_error!r}; all values could "
                "be zero"
            )
        self._set("max_relative_error", relative)
        self._set("exact", _numbers("exact", self.exact))
        self._set("missing", _number("missing", self.missing))
        self._set("experts", _integer("experts", self.experts, 1, 256))
        self._set("seed", _integer("seed", self.seed, 0, 2**63 - 1))
        if self.seed is None:
            raise MoECError("seed must be a whole number, got None; leave it out for the default 0")
        if self.effort not in EFFORTS:
            raise MoECError(f"effort must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        if self.model not in MODELS:
            raise MoECError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.scale not in SCALES:
            raise MoECError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.scale != "linear" and self.is_bounded:
            raise MoECError(
                f"scale={self.scale!r} is for ratio= and psnr=, got a bound on the error; "
                "max_relative_error= bounds relative errors"
            )
        if self.dictionary is not None:
            if not isinstance(self.dictionary, str):
                raise MoECError(
                    f"dictionary must be text, got {type(self.dictionary).__name__}; give that of a codec "
                    "that moec_zarr.train_dictionary returned"
                )
            parse_dictionary(self.dictionary)
        if self.model == "transform" and self.experts is not None:
            raise MoECError(
                f"experts={self.experts} asks for a network, model='transform' for none; leave one out"
            )

    def _set(self, name: str, value: float | int | tuple[float, ...] | None) -> None:
        object.__setattr__(self, name, value)

    @property
    def exact_values(self) -> tuple[float, ...]:
        """The values that are kept exactly."""
        return self.exact if isinstance(self.exact, tuple) else ()

    @property
    def shared(self) -> Dictionary | None:
        """The dictionary, taken apart."""
        return None if self.dictionary is None else parse_dictionary(self.dictionary)

    @property
    def dictionary_bytes(self) -> int:
        """Bytes of the dictionary; 0 without one."""
        return 0 if self.shared is None else self.shared.nbytes

    @property
    def is_bounded(self) -> bool:
        """Whether the target is a bound on the error of every value."""
        return self.max_error is not None or self.max_relative_error is not None

    @property
    def is_lossless(self) -> bool:
        """Whether the target is met by exact values alone."""
        return self.is_bounded and not self.max_error and not self.max_relative_error

    @property
    def has_networks(self) -> bool:
        """Whether a network may be fitted, which takes torch, where a chunk can have a transform."""
        if self.model == "auto":
            return self.effort != "fast" or self.experts is not None
        return self.model == "network"

    def configuration(self) -> dict[str, Any]:
        """Return the parameters that differ from their default, as plain JSON types."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(Settings)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def from_configuration(cls, data: Mapping[str, Any]) -> Self:
        """Make settings, or a codec, from stored metadata.

        Raises
        ------
        MoECError
            If `data` holds a key that this version does not know, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(Settings)]
        if unknown := sorted(set(data) - set(known)):
            raise MoECError(
                f"unknown setting {', '.join(map(repr, unknown))}; this version knows {', '.join(known)}. "
                "If the store was written by a newer moec_zarr, upgrade it"
            )
        return cls(**data)

    def __repr__(self) -> str:
        shown = self.configuration()
        if self.dictionary is not None:  # thousands of characters
            shown["dictionary"] = f"{self.dictionary[:12]}..."
        arguments = ", ".join(f"{key}={value!r}" for key, value in shown.items())
        return f"{type(self).__name__}({arguments})"


def _number(name: str, value: object) -> float | int | None:
    """`value` as a plain int or float; NumPy scalars are taken, bool and text are not."""
    if value is None:
        return None
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
        raise MoECError(
            f"{name} must be finite, got {value!r}; NaN and infinities are kept exactly without it"
        )
    raise MoECError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")


def _numbers(name: str, value: object) -> tuple[float, ...] | None:
    """Return one number, or several, as a tuple of plain ones."""
    if value is None:
        return None
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    numbers = tuple(number for each in several if (number := _number(name, each)) is not None)
    if not 1 <= len(set(numbers)) == len(several) <= _MOST_EXACT:
        raise MoECError(f"{name} takes one to {_MOST_EXACT} different numbers, got {value!r}")
    return numbers


def _real(name: str, value: object, low: float, high: float) -> float | int | None:
    number = _number(name, value)
    if number is not None and not low <= number <= high:
        raise MoECError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
    return number


def _integer(name: str, value: object, low: int, high: int) -> int | None:
    number = _number(name, value)
    if number is None:
        return None
    if not isinstance(number, int) or not low <= number <= high:
        raise MoECError(f"{name} must be a whole number in [{low}, {high}], got {value!r}")
    return number
