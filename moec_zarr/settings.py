"""The parameters of the codec, as they are stored in metadata."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Self

from moec_zarr.errors import MoECError

__all__ = ["EFFORTS", "MODELS", "TARGETS", "Effort", "Model", "Settings"]

Effort = Literal["fast", "balanced", "best"]
EFFORTS: tuple[Effort, ...] = ("fast", "balanced", "best")
Model = Literal["auto", "transform", "network"]
TARGETS = ("ratio", "psnr", "max_error")
MODELS: tuple[Model, ...] = ("auto", "transform", "network")


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Target and effort of a fit: the parameters that both codecs have.

    They are validated on construction and made of plain JSON types.

    Parameters
    ----------
    ratio : float, optional
        Bytes of the array divided by bytes of its stream, at least; from 1 to 1e9. Give exactly one
        of `ratio`, `psnr` and `max_error`.
    psnr : float, optional
        Peak signal-to-noise ratio of the decoded array in dB, at least; from 0 to 400. The peak is
        the range of the valid values.
    max_error : float, optional
        Largest absolute error of any valid value of the decoded array, in units of the data. The
        smallest stream found that keeps it is stored. 0 is lossless.
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

    Raises
    ------
    MoECError
        If a value is of the wrong type or out of range, or not exactly one target is given.
    """

    ratio: float | None = None
    psnr: float | None = None
    max_error: float | None = None
    missing: float | None = None
    effort: Effort = "balanced"
    model: Model = "auto"
    experts: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        targets = {name: getattr(self, name) for name in TARGETS}
        if sum(value is not None for value in targets.values()) != 1:
            got = ", ".join(f"{name}={value!r}" for name, value in targets.items())
            raise MoECError(
                f"exactly one target is needed, got {got}; give ratio= (times smaller), psnr= (dB) or "
                "max_error= (absolute, in units of the data)"
            )
        self._set("ratio", _real("ratio", self.ratio, 1.0, 1e9))
        self._set("psnr", _real("psnr", self.psnr, 0.0, 400.0))
        self._set("max_error", _real("max_error", self.max_error, 0.0, sys.float_info.max))
        self._set("missing", _number("missing", self.missing))
        self._set("experts", _integer("experts", self.experts, 1, 256))
        self._set("seed", _integer("seed", self.seed, 0, 2**63 - 1))
        if self.seed is None:
            raise MoECError("seed must be a whole number, got None; leave it out for the default 0")
        if self.effort not in EFFORTS:
            raise MoECError(f"effort must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        if self.model not in MODELS:
            raise MoECError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.model == "transform" and self.experts is not None:
            raise MoECError(
                f"experts={self.experts} asks for a network, model='transform' for none; leave one out"
            )

    def _set(self, name: str, value: float | int | None) -> None:
        object.__setattr__(self, name, value)

    @property
    def has_networks(self) -> bool:
        """Whether a network may be fitted, which takes torch, where a chunk can have a transform."""
        if self.model == "auto":
            return self.effort != "fast" or self.experts is not None
        return self.model == "network"

    def configuration(self) -> dict[str, Any]:
        """Return the parameters that differ from their default, as plain JSON types."""
        return {
            field.name: value
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
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.configuration().items())
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
