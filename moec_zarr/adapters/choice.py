"""Which variables of a dataset are compressed, and why the others stay lossless."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import tee
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from moec_zarr.adapters.chunking import LEAST_BYTES
from moec_zarr.adapters.enums import flags_of
from moec_zarr.adapters.meaning import is_packed
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.ome import holds_labels
from moec_zarr.adapters.samples import describe_identifiers, describe_values, is_integral, sample
from moec_zarr.adapters.tree import group_of, groups_of, local_name, split
from moec_zarr.adapters.xarray_checks import check_dataset
from moec_zarr.adapters.zarr_groups import role_of
from moec_zarr.bitstream.container import MAX_RANK
from moec_zarr.errors import MoECError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["OTHERS", "choose", "no_fields", "why_lossless"]

OTHERS = "*"
"""In a mapping of codecs: all variables that are not named and hold a field.

So do other patterns, for variables whose paths match, such as ``"*/t2m"``; the first that does counts.
"""

# Attributes that name variables which only describe others, and as what.
_DESCRIBE = {
    "bounds": "bounds",
    "climatology": "bounds",
    "coordinates": "coordinate",
    "node_coordinates": "coordinate",
    "grid_mapping": "grid mapping",
    "cell_measures": "cell measure",
    "ancillary_variables": "ancillary variable",
}
# Attributes of variables that hold names of things (CF 1.12, chapters 7.5, 8.2 and 9; UGRID 1.0).
_IDENTIFY = ("cf_role", "start_index", "sample_dimension", "instance_dimension", "compress")
_FLAG = re.compile(r"flag_(values|meanings|masks)|.*_flag_values")
# Words of names that whole numbers have which are no amounts.
_IDENTIFIERS = frozenset(
    {
        "bits",
        "code",
        "codes",
        "connectivity",
        "date",
        "dates",
        "datetime",
        "hash",
        "key",
        "status",
        "timestamp",
    }
    | {"categories", "category", "class", "classes", "cluster", "clusters", "label", "labelled", "labels"}
    | {"edge", "edges", "face", "faces", "neighbor", "neighbors", "neighbour", "neighbours", "node", "nodes"}
    | {"flag", "flags", "id", "ids", "idx", "index", "indexes", "indices", "mask", "masks", "yyyymmdd"}
    | {"qa", "qc", "quality", "seg", "segment", "segmentation", "segments"}
)
_MASKS = frozenset({"mask", "masks", "flag", "flags"})
_LATITUDE = re.compile(r"degrees?_?(north|east|n|e|true_north)", re.IGNORECASE)
_STANDARD_NAMES = {
    **dict.fromkeys(("latitude", "longitude", "grid_latitude", "grid_longitude"), "coordinate"),
    **dict.fromkeys(("projection_x_coordinate", "projection_y_coordinate", "time"), "coordinate"),
    **dict.fromkeys(("cell_area", "cell_volume"), "cell measure"),
}
_COORDINATES = frozenset(
    {"lat", "latitude", "nav_lat", "tlat", "ulat", "xlat"}
    | {"lon", "longitude", "nav_lon", "tlon", "tlong", "ulon", "ulong", "xlon", "xlong"}
)
_BOUNDS = re.compile(r"(.*_)?(bnds|bounds|vertices|corners)(_.*)?", re.IGNORECASE)
_MOST_VERTICES = 16
_TIMES = frozenset({"time", "times", "t", "valid_time", "ocean_time", "time_counter", "record", "step"})


def choose(
    ds: xr.Dataset,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    variables: Iterable[Hashable] | None = None,
) -> tuple[dict[Hashable, MoECCodec], dict[Hashable, str]]:
    """Choose the codec of each variable to compress; of each other one, say why it stays lossless.

    The parameters are those of `encoding`, and what it raises.
    """
    groups = split(ds, inherit=True)
    for group in groups.values():
        check_dataset(group)
    given: dict[Hashable, MoECCodec | None] = {OTHERS: None}
    if isinstance(codec, Mapping):
        for key, each in codec.items():
            given[_strip(key)] = each
    else:
        given[OTHERS] = codec
    for each in given.values():
        if not isinstance(each, MoECCodec) and not (each is None and isinstance(codec, Mapping)):
            raise MoECError(f"codec must be a MoECCodec in either zarr format, got {each!r}")
    patterns = {key: given.pop(key) for key in [*given] if _is_pattern(key, ds)}
    patterns[OTHERS] = patterns.pop(OTHERS, None)  # what is more general comes last
    names = None
    if variables is not None:
        names = [_strip(name) for name in ([variables] if isinstance(variables, str) else variables)]
    asked = [OTHERS] if names is None else [name for name in names if _is_pattern(name, ds)]
    named: dict[Hashable, MoECCodec | None]
    if names is None:
        named = {name: each for name, each in given.items() if each is not None}
    else:
        named = {
            name: given[name] if name in given else _codec_of(name, patterns)
            for name in names
            if name not in asked
        }
    _check_names(ds, named, given, [*patterns, *asked])
    codecs = cast("dict[Hashable, MoECCodec]", dict(named))
    reasons: dict[Hashable, str] = {}
    rules = _Rules(ds, groups)
    for name in ds.variables:
        if name in named:
            continue
        each = _codec_of(name, patterns)
        if name in ds.coords:
            reason = "coordinate"
        elif name in given and given[name] is None:
            reason = "as asked"
        elif each is None or not any(_matches(name, pattern) for pattern in asked):
            reason = "not named"
        else:
            reason = rules.reason(name, each)
        if reason:
            reasons[name] = reason
        elif each is not None:
            codecs[name] = each
    return codecs, reasons


def _strip(name: Hashable) -> Hashable:
    """Return the path of a variable as a tree has it, from the root on."""
    return name.removeprefix("/") if isinstance(name, str) else name


def _is_pattern(key: Hashable, ds: xr.Dataset) -> bool:
    """Whether a key of a mapping stands for all variables whose paths match it."""
    return isinstance(key, str) and key not in ds.variables and any(each in key for each in "*?[")


def _matches(name: Hashable, pattern: Hashable) -> bool:
    return pattern == OTHERS or fnmatchcase(str(name), str(pattern))


def _codec_of(name: Hashable, patterns: Mapping[Hashable, MoECCodec | None]) -> MoECCodec | None:
    """Return the codec of the first pattern that a variable matches."""
    return next((each for pattern, each in patterns.items() if _matches(name, pattern)), None)


def _check_names(
    ds: xr.Dataset,
    named: Mapping[Hashable, MoECCodec | None],
    given: Mapping[Hashable, MoECCodec | None],
    patterns: Iterable[Hashable],
) -> None:
    """Refuse names that no data variable has.

    Raises
    ------
    MoECError
        If there is one, a variable to compress has no codec, or a pattern matches none.
    """
    for name in {**named, **given}:
        if name not in ds.data_vars or (name in named and named[name] is None):
            raise MoECError(
                f"{name!r} is not a data variable with a codec; the data variables are "
                f"{', '.join(map(repr, ds.data_vars))}"
            )
    for pattern in patterns:
        if pattern != OTHERS and not any(_matches(name, pattern) for name in ds.data_vars):
            raise MoECError(
                f"no data variable matches {pattern!r}; they are {', '.join(map(repr, ds.data_vars))}"
            )


def why_lossless(ds: xr.Dataset, names: Iterable[Hashable], settings: Settings) -> dict[Hashable, str]:
    """Say in a word why variables that are not named stay lossless; empty if they are compressed.

    Values are read as `encoding` says.
    """
    rules = _Rules(ds, split(ds, inherit=True))
    return {name: rules.reason(name, settings) for name in names}


class _Rules:
    """What stays lossless in the groups of a tree, each looked at once, when it is first asked about."""

    def __init__(self, ds: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> None:
        self._ds, self._groups = ds, groups
        self._known: dict[str, _Rule] = {}

    def reason(self, name: Hashable, settings: Settings) -> str:
        """Say why the variable at a path stays lossless with some settings; empty if it is compressed."""
        path = group_of(name)
        if path not in self._known:
            self._known[path] = _Rule.of(self._groups[path], _kind_of_group(self._ds, path))
        return self._known[path].reason(local_name(name), settings)


def _kind_of_group(ds: xr.Dataset, path: str) -> str:
    """Say what no array of a group is a field of, by the attributes of the group and of those around it."""
    known = groups_of(ds)
    while True:
        attrs = known[path].attrs if path in known else {}
        if holds_labels(path, attrs):
            return "labels"
        if "encoding-type" in attrs:  # AnnData: rows and columns of a table, or parts of a sparse matrix
            return "table"
        if not path:
            return ""
        path = group_of(path)


@dataclass(frozen=True)
class _Rule:
    """What stays lossless in a dataset.

    Attributes
    ----------
    ds : Dataset
        A group.
    describing : dict
        The variables that only describe others, as `no_fields` finds them.
    steps : set
        Dimensions of time along which a field runs.
    kind : str
        What all variables are, by metadata of groups, if they are no fields.
    """

    ds: xr.Dataset
    describing: Mapping[Hashable, str]
    steps: frozenset[Hashable]
    kind: str

    @classmethod
    def of(cls, ds: xr.Dataset, kind: str) -> Self:
        """Find what other variables say of each."""
        describing = no_fields(ds)
        fields = [
            var
            for name, var in ds.data_vars.items()
            if name not in describing and var.dtype.kind in "iuf" and var.ndim > 1 and not _is_time(var)
        ]
        steps = {dim for dim in ds.dims if _runs_in_time(ds, dim) and any(dim in var.dims for var in fields)}
        return cls(ds, describing, frozenset(steps), kind)

    def reason(self, name: Hashable, settings: Settings) -> str:
        """Say why a variable stays lossless with some settings; empty if it is compressed."""
        var = self.ds.variables[name]
        if name in self.ds.coords:
            return "coordinate"
        if self.kind:
            return self.kind
        if name in self.describing:
            return self.describing[name]
        if _is_time(var):
            return "time"
        if var.dtype.kind not in "iuf" or var.dtype.itemsize > 8:
            return "no number"
        known = {str(key) for key in var.attrs.keys() | var.encoding.keys()}
        if any(map(_FLAG.fullmatch, known)) or flags_of(var):
            return "flags"
        if found := [key for key in _IDENTIFY if key in known]:
            return f"identifiers: {found[0]}"
        if var.ndim > MAX_RANK:
            return f"more than {MAX_RANK} axes"
        if var.nbytes < LEAST_BYTES * (settings.ratio or 1):
            return "small"
        if self.steps and self.steps.isdisjoint(var.dims):
            return "no time axis"
        return _reason_by_values(name, var)


def _is_time(var: xr.Variable | xr.DataArray) -> bool:
    units = str(var.attrs.get("units", var.encoding.get("units", "")))
    return var.dtype.kind in "mM" or " since " in units


def _runs_in_time(ds: xr.Dataset, dim: Hashable) -> bool:
    """Whether a dimension is one of time, by its coordinate or its name."""
    var = ds.variables.get(dim)
    if var is None or var.ndim != 1:
        return str(dim).lower() in _TIMES
    return _is_time(var) or var.attrs.get("axis") == "T" or str(dim).lower() in _TIMES


def _reason_by_values(name: Hashable, var: xr.Variable) -> str:
    """Say why numbers are no field, by their names and a sample of them."""
    # xarray makes floats of integers that have a fill value.
    stored = np.dtype(var.encoding.get("dtype") or var.dtype)
    integers = stored.kind in "iu" and not is_packed(var)
    words = _words(name, var.attrs.get("standard_name"), var.attrs.get("long_name"))
    found = sorted(_IDENTIFIERS.intersection(words))
    if not integers and not found:
        return ""
    blocks, again, once_more = tee(sample(var), 3)  # read once, and no further than is needed
    if not integers:
        integers = is_integral(blocks)
        if not integers and _MASKS.isdisjoint(found):
            return ""
    if reason := describe_values(again):
        return reason
    if integers and found:
        return f"identifiers: {found[0]!r} in its name"
    return describe_identifiers(once_more) if integers else ""


def _words(*names: Any) -> set[str]:
    """Return the words of names such as ``cell_id``, ``cellId`` or ``Cell ID``, in lower case."""
    text = " ".join(str(name) for name in names if name is not None)
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def no_fields(ds: xr.Dataset) -> dict[Hashable, str]:
    """Find the data variables that only describe others, and as what, such as "bounds" or "grid mapping"."""
    found = {name: what for name, var in ds.data_vars.items() if (what := _role(name, var.variable))}
    sources = [ds.encoding | ds.attrs, *(var.encoding | var.attrs for var in ds.variables.values())]
    for known in sources:
        for key, what in _DESCRIBE.items():
            for word in str(known.get(key, "")).split():
                # "crs: x y" names the grid mapping of coordinates, and "area: areacella" a measure.
                name = word.rstrip(":") if what == "grid mapping" else word
                if name in ds.data_vars and (what != "grid mapping" or ds[name].size == 1):
                    found[name] = what
    return found


def _role(name: Hashable, var: xr.Variable) -> str:
    """Say what a variable is by its own attributes and name, if it is no field."""
    if role := role_of(var):
        return role
    attrs = var.attrs
    if what := _STANDARD_NAMES.get(str(attrs.get("standard_name"))):
        return what
    if _LATITUDE.fullmatch(str(attrs.get("units", ""))) or attrs.get("axis") in ("X", "Y", "Z", "T"):
        return "coordinate"
    if "_CoordinateAxisType" in attrs or str(name).lower() in _COORDINATES:
        return "coordinate"
    if var.ndim and var.shape[-1] <= _MOST_VERTICES and _BOUNDS.fullmatch(str(name)):
        return "bounds"
    return ""
