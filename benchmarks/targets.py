"""Which target for which variable: what a recommended target keeps, beside a ratio and a PSNR.

``python -m benchmarks.targets FOLDER ...`` encodes a part of each kind of field (``KINDS``) that the folders
of ``.npz`` files (array ``data``) have, and the humidity of ``examples/rain_and_humidity.py``, with effort
"fast", on one thread: at the target that ``docs/which-target.md`` recommends, at the ratio that this reaches
or another target that comes to mind, and at 70 dB. Humidity is encoded at 70 dB once more with each level in
a chunk of its own, as a conversion does it, and within a tighter bound. Of each decoded array: what its users
count, add up and compare.

A measurement is a line in the file of results; what is there already is not measured again.
``python -m benchmarks.tables`` makes the tables of the page from the lines.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np

from benchmarks.fields import find_fields
from benchmarks.records import OURS, Array, Line, Records, codec_version, markdown, origin
from benchmarks.speed import warm
from examples.rain_and_humidity import LEVELS, simulate_month
from moec_zarr import judge
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.report.verdict.criteria import CRITERIA
from moec_zarr.settings import Settings

PSNR = 70  # which sounds good
TIGHT = 0.002  # of humidity, in about the bytes that the PSNR takes by level
RECOMMENDED, BESIDE, AT_PSNR = "recommended", "beside", f"{PSNR} dB"
APART, TIGHTLY = f"{PSNR} dB by level", "tightly"  # of humidity alone
HUMIDITY, RAIN = "simulated_humidity", "pr_canesm2_3d"
DAY = 86400


class Kind(NamedTuple):
    """A kind of variable: a field of it, and the target that suits it.

    `levels` is the axis along which means differ, `part` what is measured of the field. Users count values
    from `threshold` on. `beside` is a target to compare with, in place of the ratio that is reached.
    """

    variable: str
    units: str
    field: str
    target: dict[str, Any]
    why: str
    threshold: float
    levels: int | None = None
    part: tuple[slice, ...] = ()
    beside: dict[str, Any] = {}  # noqa: RUF012 - never changed


KINDS = (
    Kind("temperature", "K", "era5_t2m_3d", {"max_error": 0.1},
         "a tenth of a kelvin is one everywhere", 273.15, part=(slice(240),)),
    Kind("temperature of the ocean, land is NaN", "°C", "levitus_temp_nan_3d", {"max_error": 0.05},
         "as temperature; NaN is exact", 26.0, part=(slice(None), slice(40, 140), slice(200))),
    Kind("wind", "m/s", "um_xwind_4d", {"max_error": 0.1},
         "crosses zero: a share of it means nothing there", 5.0, 1, (slice(4),)),
    Kind("ocean current, land is NaN", "m/s", "globcurrent_u_nan_3d", {"max_error": 0.01},
         "as wind", 0.5, part=(slice(120),)),
    Kind("humidity on levels", "kg/kg", "simulated_humidity", {"max_relative_error": 0.01},
         "each level has a magnitude of its own", 1e-3, 1),
    Kind("humidity over the sea", "g/kg", "coads_speh_nan_3d", {"max_relative_error": 0.01},
         "dry air counts as moist air does", 10.0),
    Kind("daily rain of a model", "kg m-2 s-1", "pr_canesm2_3d",
         {"max_relative_error": 0.01, "max_error": 1e-7, "exact": [0]},
         "decades, and zeros; less than 0.01 mm a day is none", 1 / DAY),
    Kind("rain of a radar", "mm/h", "mrms_preciprate_3d", {"max_error": 0},
         "142 different values: lossless takes no more", 1.0, None, (slice(6),),
         {"max_relative_error": 0.01}),
    Kind("cloud fraction", "%", "cl_cesm2_4d", {"max_relative_error": 0.02, "max_error": 0.1, "exact": [0]},
         "decades, and zeros; less than 0.1 % is clear", 50.0, 1),
    Kind("cloud water", "kg/kg", "wrf_qcloud_4d",
         {"max_relative_error": 0.01, "max_error": 1e-8, "exact": [0]},
         "decades, and zeros", 1e-5, 1),
    Kind("tracer over decades: ozone", "mol/mol", "o3_gfdl_nan_4d", {"max_relative_error": 0.01},
         "each level has a magnitude of its own", 1e-6, 1),
    Kind("tracer on a background: CO2", "ppm", "gems_co2_3d", {"max_error": 0.1},
         "1 % of a value is 4 ppm, a sixth of the range", 390.0, None, (slice(10),),
         {"max_relative_error": 0.01}),
    Kind("tendency of humidity", "1/s", "tnhus_miroc_4d", {"max_relative_error": 0.01, "max_error": 1e-13},
         "20 decades, both signs; the smallest are nothing", 1e-10, 1, (slice(2),)),
    Kind("sea ice, land is NaN", "%", "cmip6_siconc_nan_3d",
         {"max_relative_error": 0.01, "max_error": 0.1, "exact": [0]},
         "as cloud fraction", 15.0, None, (slice(4),)),
    Kind("sea ice, land is 0", "", "fice_3d",
         {"max_relative_error": 0.01, "max_error": 0.001, "exact": [0]},
         "as above; land is stored once", 0.15, part=(slice(80),)),
    Kind("labels, classes, flags", "", "frog_labels_3d", {"max_error": 0},
         "names of things, not amounts", 0.5, None, (slice(30, 54), slice(60, 260), slice(60, 190)),
         {"ratio": 100}),
    Kind("CT", "HU", "ct_chest_3d", {"max_error": 10},
         "ten Hounsfield units are ten everywhere", -400.0, None,
         (slice(26, 38), slice(20, 236), slice(20, 236))),
    Kind("MRI", "8 bits", "mri_spm152_3d", {"psnr": 45, "exact": [0]},
         "units are arbitrary, so a bound is; the background is 0", 128.0, part=(slice(100, 112),)),
    Kind("fluorescence", "counts", "neurons_3d", {"ratio": 20},
         "a bound stores noise, a ratio leaves it out", 1000.0, part=(slice(6),)),
    Kind("speed of turbulence", "", "turbulence_wmag_3d", {"psnr": 60},
         "variance by scale is what counts", 50.0, part=(slice(48),)),
    Kind("pressure of a shock", "dyn/cm²", "cth_pressure_3d", {"max_relative_error": 0.01, "max_error": 1e6},
         "ten decades, both signs; up to a bar it is at rest", 1e9),
)  # fmt: skip


# ----------------------------------------------------------------------------- what was kept


def measure(x: Array, y: Array, kind: Kind) -> Line:
    """What became of a field: errors of values and by level, zeros, counts, sums, signs, the verdict.

    Where an absolute error is allowed, values up to it are nothing, and levels and slices of such a mean do
    not count. Relative errors are those of values from which on the relative bound is the wider one.
    """
    nothing = kind.target.get("max_error", 0.0)
    valid = np.isfinite(x)
    a, b = (np.where(valid, values, 0).astype("f8") for values in (x, y))
    counted = np.abs(a) > nothing / kind.target.get("max_relative_error", 1)
    share = np.abs(b - a)[counted] / np.abs(a)[counted]
    zero, above, after = valid & (a == 0), valid & (a >= kind.threshold), valid & (b >= kind.threshold)
    verdict = judge(x, y, criteria={"thresholds": [kind.threshold]})
    return {
        "changed": float((a != b)[valid].mean()),
        "relative_99": float(np.percentile(share, 99)), "relative_largest": float(share.max()),
        "zeros": int(zero.sum()), "zeros_kept": int((zero & (b == 0)).sum()),
        "beyond": int(above.sum()), "beyond_after": int(after.sum()), "crossed": int((above != after).sum()),
        "bias": float((b - a).sum() / np.abs(a).sum()),
        "sums": max(map(abs, bias_of_slices(a, b, valid, nothing))),
        "levels": error_of_levels(a, b, valid, kind.levels, nothing),
        "least": float(a[valid].min()), "least_after": float(b[valid].min()),
        "not_kept": [each.criterion for each in verdict.of("not kept")],
    }  # fmt: skip


def bias_of_slices(x: Array, y: Array, valid: Array, nothing: float) -> list[float]:
    """How far the sum over each slice along the last two axes is off, over the sum of magnitudes there."""
    axes = (-2, -1)
    whole, number = np.abs(x).sum(axes).ravel(), valid.sum(axes).ravel()
    counted = whole > nothing * number
    return list(((y - x).sum(axes).ravel()[counted] / whole[counted]).tolist())


def error_of_levels(x: Array, y: Array, valid: Array, axis: int | None, nothing: float) -> list[float]:
    """Root mean square error of each level over its mean magnitude; of all where there are no levels."""
    others = tuple(other for other in range(x.ndim) if other != axis)
    number = np.maximum(np.atleast_1d(valid.sum(others)), 1)
    means = np.atleast_1d(np.abs(x).sum(others)) / number
    rms = np.sqrt(np.atleast_1d(np.square(y - x).sum(others)) / number)
    return list((rms[means > nothing] / means[means > nothing]).tolist())


# --------------------------------------------------------------------------- what is measured


def encode_and_measure(array: Array, kind: Kind, target: dict[str, Any], apart: int | None = None) -> Line:
    """Bytes and seconds at a target, and what was kept; with `apart`, each level of that axis is a chunk."""
    settings = Settings(effort="fast", **target)
    parts = [array] if apart is None else np.split(array, array.shape[apart], axis=apart)
    begun = time.process_time()
    streams = [encode(np.ascontiguousarray(part), settings) for part in parts]
    seconds = time.process_time() - begun
    decoded = np.concatenate([decode(stream) for stream in streams], axis=apart or 0)
    ratio = array.nbytes / sum(map(len, streams))
    return {"target": target, "ratio": ratio, "encode_cpu": seconds} | measure(array, decoded, kind)


def measure_kind(array: Array, kind: Kind) -> dict[str, Line]:
    """What is kept at the recommended target, beside it, and at a PSNR."""
    found = {RECOMMENDED: encode_and_measure(array, kind, kind.target)}
    beside = kind.beside or {"ratio": found[RECOMMENDED]["ratio"]}
    found[BESIDE] = encode_and_measure(array, kind, beside)
    found[AT_PSNR] = encode_and_measure(array, kind, {"psnr": PSNR})
    if kind.field == HUMIDITY:
        found[APART] = encode_and_measure(array, kind, {"psnr": PSNR}, kind.levels)
        found[TIGHTLY] = encode_and_measure(array, kind, {"max_relative_error": TIGHT})
    return found


def find_kinds(folders: list[Path]) -> Iterator[tuple[Kind, Array]]:
    """Each kind whose field is there, with the part of it that is measured."""
    loaders: dict[str, Callable[[], Array]] = {}
    for folder in folders:
        loaders |= find_fields(folder)
    loaders[HUMIDITY] = lambda: np.asarray(simulate_month().hus)
    for kind in KINDS:
        if kind.field in loaders:
            yield kind, np.ascontiguousarray(loaders[kind.field]()[kind.part])


def settings_of(kind: Kind) -> dict[str, Any]:
    """What a line says of the target."""
    return {"effort": "fast"} | kind.target


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    here, version = origin(), codec_version()
    warm("fast")
    with config.set(cache=0, progress=False):
        for kind, array in find_kinds(arguments.folders):
            line: Line = {
                "benchmark": "targets", "field": kind.field, "shape": array.shape, "dtype": array.dtype.str,
                "codec": OURS, "settings": settings_of(kind), "version": version,
            }  # fmt: skip
            if line in records or (arguments.fields and kind.field not in arguments.fields):
                continue
            line |= {"load": os.getloadavg()[0], "at": measure_kind(array, kind)}
            records.add(line | here)
            found = ", ".join(f"{at} {each['ratio']:.1f}x" for at, each in line["at"].items())
            print(f"{kind.field}: {found}", flush=True)


# -------------------------------------------------------------------------------- tables


def by_kind(lines: list[Line]) -> dict[str, tuple[Kind, Line]]:
    """The line of each kind of variable, at the target that is recommended now, by field."""
    return {
        kind.field: (kind, line)
        for kind in KINDS
        for line in lines
        if (line["field"], line["settings"]) == (kind.field, settings_of(kind))
    }


def tabulate_guide(lines: list[Line]) -> str:
    """The target of each kind of variable, why, what it does not keep, and what it reaches."""
    rows = []
    for kind, line in by_kind(lines).values():
        each = line["at"][RECOMMENDED]
        variable = kind.variable + f" ({kind.units})" * bool(kind.units)
        rows.append([variable, _call(kind.target), kind.why, _lost(each), f"{each['ratio']:.1f}x"])
    return markdown(["variable", "target", "because", "does not keep", "ratio"], rows, text_columns=4)


def _lost(each: Line) -> str:
    """Name the criteria that are not kept."""
    return ", ".join(CRITERIA[name].title for name in each["not_kept"]) or "nothing"


def _call(target: Line) -> str:
    """Write a target as the arguments of a call."""
    values = {name: value[0] if name == "exact" else value for name, value in target.items()}
    text = ", ".join(f"`{name}={value:.3g}`" for name, value in values.items())
    return text.replace("e-0", "e-").replace("e+0", "e")


def tabulate_kept(lines: list[Line]) -> str:
    """In per cent, what a bound keeps beside another target, mostly a ratio of as many bytes."""
    rows = []
    for kind, line in by_kind(lines).values():
        if "ratio" not in kind.target and "psnr" not in kind.target:
            both = [line["at"][at] for at in (RECOMMENDED, BESIDE)]
            cells = (" / ".join(cell(each) for each in both) for cell in KEPT.values())
            cells = ("-" if cell == "- / -" else cell for cell in cells)
            beside = f" / {_call(kind.beside)}" if kind.beside else ""
            rows.append([kind.variable + beside, *cells])
    return markdown(["variable", *KEPT], rows)


def _percent(share: float) -> str:
    """Write a share in per cent; "0" is none at all, and what is beyond all measure is not told apart."""
    if share > 10:
        return "> 1000"
    return f"{100 * share:.{0 if share >= 0.0995 else 1 if share >= 0.00995 else 2}f}" if share else "0"


KEPT: dict[str, Callable[[Line], str]] = {
    "worst level": lambda each: _percent(max(each["levels"])),
    "1 in 100": lambda each: _percent(each["relative_99"]),
    "zeros": lambda each: _percent(each["zeros_kept"] / each["zeros"]) if each["zeros"] > 1000 else "-",
    "crossed": lambda each: _percent(each["crossed"] / each["beyond"]),
    "mean": lambda each: "-" * (each["bias"] < -5e-5) + _percent(abs(each["bias"])),
    "worst slice": lambda each: _percent(each["sums"]),
}


def tabulate_rain(lines: list[Line]) -> str:
    """What becomes of a model's rain, by target."""
    _, line = by_kind(lines)[RAIN]
    columns = {"1 %, 0.01 mm": RECOMMENDED, "as many bytes": BESIDE, f"{PSNR} dB": AT_PSNR}
    found = [line["at"][at] for at in columns.values()]
    cells: dict[str, Callable[[Line], str]] = {
        "ratio": lambda each: f"{each['ratio']:.1f}x",
        "days without rain that stay so": lambda each: f"{each['zeros_kept']:,} of {each['zeros']:,}",
        "wet days, 1 mm or more": lambda each: f"{each['beyond']:,}, then {each['beyond_after']:,}",
        "days that cross 1 mm": lambda each: f"{each['crossed']:,}",
        "largest error of a day with more than 1 mm": lambda each: f"{_percent(each['relative_largest'])} %",
        "all rain": lambda each: f"{100 * each['bias']:+.3f} %",
        "rain of a day, at most": lambda each: f"{_percent(each['sums'])} %",
        "smallest value": lambda each: f"{each['least_after']:g}",
        "does not keep": _lost,
    }
    rows = [[text, *map(cell, found)] for text, cell in cells.items()]
    return markdown(["rain", *columns], rows)


def tabulate_levels(lines: list[Line]) -> str:
    """The error of simulated humidity on each level over its mean, by target."""
    _, line = by_kind(lines)[HUMIDITY]
    columns = {
        "within 1 %": RECOMMENDED, "as many bytes": BESIDE, f"{PSNR} dB": AT_PSNR,
        f"{PSNR} dB, each level apart": APART, f"within {100 * TIGHT:g} %": TIGHTLY,
    }  # fmt: skip
    found = [line["at"][at] for at in columns.values()]
    rows = [
        [f"{level / 100:g} hPa", *(f"{_percent(each['levels'][place])} %" for each in found)]
        for place, level in enumerate(LEVELS)
    ]
    rows.append(["largest error of a value", *(f"{_percent(each['relative_largest'])} %" for each in found)])
    rows.append(["ratio", *(f"{each['ratio']:.1f}x" for each in found)])
    rows.append(["does not keep", *map(_lost, found)])
    return markdown(["level", *columns], rows)


def main(words: list[str] | None = None) -> None:
    """Measure each kind of variable."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*", help="of .npz files")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/targets.jsonl"))
    arguments = parser.parse_args(words)
    run(arguments, Records(arguments.results))


if __name__ == "__main__":
    main()
