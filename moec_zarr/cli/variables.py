"""Settings for each variable: from ``--var t2m:ratio=200`` and from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.errors import MoECError
from moec_zarr.settings import BOUNDS, TARGETS, Settings

__all__ = ["codecs_of"]

_NAMES = tuple(field.name for field in dataclasses.fields(Settings))
_TARGETS = set(TARGETS)
_LOSSLESS = "lossless"
_EXACT = "exact"
_TABLE = "variables"


def codecs_of(
    options: Mapping[str, Any], var: Iterable[str] | None = None, file: Path | None = None
) -> MoECCodec | dict[str, MoECCodec | None]:
    """Return the codec of all variables, or of each, as `moec_zarr.convert` takes it.

    A setting of a variable is taken from the first of these that has it: its ``--var``, its table in the
    file, the options of the command line, the top of the file. The targets (ratio, psnr ...) count as one
    setting.

    Parameters
    ----------
    options : mapping of str to value
        Settings from the command line; None where an option is not given.
    var : iterable of str, optional
        ``NAME``, ``NAME:SETTING=VALUE,...`` or ``NAME:lossless``. If it has names, all other variables stay
        lossless.
    file : path, optional
        A TOML file: settings of all variables at its top, and ``[variables.NAME]`` with those of one, or
        ``NAME = "lossless"`` under ``[variables]``.

    Raises
    ------
    MoECError
        If the file cannot be read, a setting is unknown, out of range or not understood, a variable has no
        target, or is named twice.
    """
    top, tables = _read(file) if file is not None else ({}, {})
    options = {name: value for name, value in options.items() if value is not None}
    shared = _over(top, options)
    asked: dict[str, dict[str, Any] | None] = {}
    for name, each in map(_parse, var or ()):
        if name in asked:
            raise MoECError(f"--var names {name!r} twice; give its settings in one, as NAME:ratio=200,seed=1")
        asked[name] = each
    if asked:
        layers = {name: [tables.get(name, {}), each] for name, each in asked.items()}
    else:
        layers = {name: [each] for name, each in tables.items()}
    codecs: dict[str, MoECCodec | None] = {}
    for name, over in layers.items():
        found = shared
        for each in over:
            found = _over(found, each or {})
        codecs[name] = None if over[-1] is None else _codec(name, found)
    if not codecs:
        return _codec("", shared)
    named = any(each is not None for each in codecs.values())
    if not named or (not asked and _TARGETS.intersection(shared)):
        codecs["*"] = _codec("", shared)
    return codecs


def _codec(name: str, settings: Mapping[str, Any]) -> MoECCodec:
    try:
        return MoECCodec(**settings)
    except MoECError as error:
        raise MoECError(f"variable {name!r}: {error}" if name else str(error)) from error


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Replace settings by others that replace them; a target replaces every other one."""
    replaced = _TARGETS if _TARGETS.intersection(above) else set()
    return {name: value for name, value in below.items() if name not in replaced} | dict(above)


def _parse(text: str) -> tuple[str, dict[str, Any] | None]:
    """Name and settings, from ``t2m:ratio=200,effort=fast``; None for settings where it stays lossless."""
    # Names may hold colons; settings hold no colon before their first "=".
    head, equals, tail = text.partition("=")
    if not equals:
        name, colon, last = text.rpartition(":")
        return (name, None) if colon and last.strip() == _LOSSLESS else (text, {})
    name, colon, first = head.rpartition(":")
    if not colon or not name:
        raise MoECError(f"--var takes NAME, NAME:SETTING=VALUE,... or NAME:{_LOSSLESS}; got {text!r}")
    settings: dict[str, Any] = {}
    exact: list[float | str] = []
    for part in f"{first}={tail}".split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise MoECError(f"--var {text}: {key!r} has no value; settings are written NAME=VALUE")
        if key in settings:
            raise MoECError(f"--var {text}: {key} is given twice")
        if key == _EXACT:  # the one of which there may be several
            exact.append(_value(value))
        else:
            settings[key] = _value(value)
    if exact:
        settings[_EXACT] = exact if len(exact) > 1 else exact[0]
    _check(f"--var {text}", settings)
    return name, settings


def _value(text: str) -> float | str:
    """Return a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check(where: str, settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in _NAMES:
            raise MoECError(f"{where}: there is no setting {name!r}; there are {', '.join(_NAMES)}")
    if len(found := sorted(_TARGETS.intersection(settings))) > 1 and set(found) != set(BOUNDS):
        raise MoECError(f"{where}: {' and '.join(found)} are both targets; give one of them")


def _read(file: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any] | None]]:
    """Read the settings of all variables, and of each that has some."""
    try:
        with file.open("rb") as stream:
            data = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MoECError(f"{file} is no TOML file: {error}") from error
    tables = data.pop(_TABLE, {})
    if not isinstance(tables, dict):
        raise MoECError(f"{file}: [{_TABLE}] holds a table for each variable, got {tables!r}")
    _check(str(file), data)
    read: dict[str, dict[str, Any] | None] = {}
    for name, settings in tables.items():
        if settings == _LOSSLESS:
            read[name] = None
        elif isinstance(settings, dict):
            _check(f"{file}, variable {name!r}", settings)
            read[name] = settings
        else:
            raise MoECError(f"{file}: {name} takes settings or {_LOSSLESS!r}, got {settings!r}")
    return data, read
