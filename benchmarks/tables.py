"""The tables and pictures of the pages, made from the results that are committed.

``python -m benchmarks.tables`` writes each table between its marks, ``<!-- table: NAME -->`` and
``<!-- end -->``, in the README and in ``docs/``, from the lines in ``benchmarks/results/``. It draws the
pictures in ``docs/images/`` from them too. Where a kind of measurement was made more than once, its last
line counts.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import beside, cells, dictionary, experts, pictures, relative, speed, targets, zeros
from benchmarks.records import OURS, ROOT, Line, Records, latest, markdown, million, nbytes

RESULTS = Path(__file__).parent / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAST = {"effort": "fast"}
FIELDS = {
    "um_xwind_4d": "zonal wind, 4D",
    "glosea4_sst_ens_4d": "sea surface temperature, ensemble, 4D",
    "era5_t2m_3d": "2 m temperature, hourly",
    "gems_co2_3d": "column CO2",
    "globcurrent_u_nan_3d": "ocean current with land",
    "cmip6_siconc_nan_3d": "sea ice with land",
    "turbulence_wmag_3d": "turbulence",
    "vorticity_3d": "vorticity",
    "ct_chest_3d": "chest CT, integers",
    "mri_spm152_3d": "brain MRI, integers",
    "mouse_brain_3d": "mouse brain, microscopy, integers",
    "neurons_3d": "neurons, microscopy, integers",
}
PICTURED = ("um_xwind_4d", "era5_t2m_3d", "turbulence_wmag_3d", "ct_chest_3d")


def results(name: str) -> list[Line]:
    """Read the lines of a benchmark that count."""
    return latest(Records(RESULTS / f"{name}.jsonl").lines)


def filled(page: str) -> str:
    """Replace what stands between the marks of a page by the tables of the results."""
    return MARK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


def origin(lines: list[Line]) -> str:
    """Say what was measured at which commits, on which machines and under which load."""
    commits: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda line: (line["codec"] != OURS, line["codec"])):
        own = line["codec"] == OURS
        name = f'"{line["settings"].get("effort", "fast")}"' if own else f"{line['codec']} {line['version']}"
        commits.setdefault(line["commit"], []).append(name)
    codecs = [f"{commit}: {', '.join(dict.fromkeys(names))}" for commit, names in sorted(commits.items())]
    machines = dict.fromkeys(f"{m['processor']}, {m['cores']} cores" for m in (x["machine"] for x in lines))
    loads = [line["load"] for line in lines if "load" in line]
    load = [f"load {min(loads):.1f} to {max(loads):.1f}"] if loads else []
    return f"\nMeasured at commit {'; '.join([*codecs, *machines, *load])}.\n"


# ------------------------------------------------------------------------------ speed.jsonl


def at_speed() -> list[Line]:
    """Read the measurements of time and quality that were reached."""
    return [
        line for line in results("speed") if line["benchmark"] == "speed" and line.get("psnr") is not None
    ]


def of_fast(lines: list[Line]) -> list[Line]:
    """Take this codec's lines with effort "fast"."""
    return [line for line in lines if line["codec"] == OURS and line["settings"] == FAST]


def _seconds(line: Line | None) -> str:
    return f"{beside.encoding(line):.2f}" if line else ""


def efforts() -> str:
    """Tabulate what more effort gains at 1000x."""
    lines = [line for line in at_speed() if line["codec"] == OURS and line["ratio"] == 1000]
    places = {(line["field"], line["settings"]["effort"]): line for line in lines}
    rows = []
    for field in [*FIELDS, speed.PHANTOM]:
        found = [places.get((field, effort)) for effort in speed.EFFORTS]
        values = [f"{line['psnr']:.2f}" if line else "" for line in found]
        rows.append([field, *values, *(_seconds(line) for line in found)])
    names = [f'"{effort}"' for effort in speed.EFFORTS]
    return markdown(
        ["field", *(f"{n}, dB" for n in names), *(f"{n}, CPU s/M" for n in names)], rows
    ) + origin(lines)


def memory() -> str:
    """Tabulate decoding with and without numba, and memory in bytes a voxel, medians and most."""
    lines, rows = of_fast(at_speed()), []
    for ratio in sorted({line["ratio"] for line in lines}, reverse=True):
        each = [line for line in lines if line["ratio"] == ratio]
        rates = [
            statistics.median(million(line) / line[name] for line in each)
            for name in ("decode_cpu", "decode_cpu_numpy")
        ]
        held = [
            [line[name] * 2**20 / million(line) / 1e6 for line in each]
            for name in ("encode_megabytes", "decode_megabytes")
        ]
        cells = [f"{statistics.median(values):.0f}, {max(values):.0f}" for values in held]
        rows.append([f"{ratio:g}x", *(f"{rate:.1f}" for rate in rates), *cells])
    header = ("ratio", "decode, M/s", "without numba", "encode, bytes a voxel", "decode, bytes a voxel")
    return markdown(header, rows) + origin(lines)


def reads() -> str:
    """Tabulate CPU milliseconds of reads, cold and warm, in the median over fields."""
    found: dict[str, dict[str, list[Line]]] = {}  # by kind of read and by column
    lines = [line for line in results("speed") if "reads" in line or "stores" in line]
    for line in lines:
        places = line.get("stores", {}) | ({"chunk": line["reads"]} if "reads" in line else {})
        for place, each in places.items():
            column = f"{place}, {line['ratio']:g}x, {line['settings'].get('effort')}"
            for read in each:
                found.setdefault(read["read"], {}).setdefault(column, []).append(read)
    columns = [column for column in READS if any(column in each for each in found.values())]
    rows = [
        [read, *(_milliseconds(each.get(column, [])) for column in columns)] for read, each in found.items()
    ]
    return markdown(["read", *(READS[column] for column in columns)], rows) + origin(lines)


READS = {
    "chunk, 1000x, fast": "a chunk, 1000x",
    "chunk, 100x, fast": "a chunk, 100x",
    "chunks, 100x, fast": "two chunks, 100x",
    "shards, 100x, fast": "two in a shard, 100x",
    "chunk, 1000x, balanced": 'a chunk, 1000x, "balanced"',
}


def _milliseconds(each: list[Line]) -> str:
    return " / ".join(
        f"{statistics.median(x[state] for x in each):.1f}" for state in ("cold", "warm") if each
    )


def quality() -> str:
    """Tabulate PSNR of each field at each ratio."""
    lines = of_fast(at_speed())
    ratios = sorted({line["ratio"] for line in lines}, reverse=True)
    found = {(line["field"], line["ratio"]): f"{line['psnr']:.1f}" for line in lines}
    rows = [
        [f"{text} ({name})", *(found.get((name, r), "") for r in ratios)] for name, text in FIELDS.items()
    ]
    return markdown(["field", *(f"{ratio:g}x" for ratio in ratios)], rows) + origin(lines)


# --------------------------------------------------------------------------------- rd.jsonl


def ratios(lines: list[Line]) -> str:
    """Tabulate each field at each ratio beside the best peer."""
    return beside.by_field([line for line in lines if "ratio" in line], FIELDS)


def bounds(lines: list[Line]) -> str:
    """Tabulate each field at each bound beside the best peer."""
    return beside.by_field([line for line in lines if "share" in line], FIELDS)


def in_short(lines: list[Line]) -> str:
    """Tabulate this codec beside SPERR, and say who else wins."""
    return beside.in_short(lines, FIELDS)


def lost(lines: list[Line]) -> str:
    """Tabulate where a peer is better."""
    return beside.lost(lines, FIELDS)


def integers(lines: list[Line]) -> str:
    """Tabulate integer fields beside video codecs."""
    return beside.of_integers(lines, FIELDS)


# -------------------------------------------------------------------------------- gpu.jsonl


def groups() -> str:
    """Tabulate chunks that are trained together on a CPU."""
    lines, rows = results("gpu"), []
    for line in lines:
        rows.append([
            line["field"], "x".join(map(str, line["shape"])), f"{line['ratio']:g}x",
            str(line["settings"]["group"]), f"{line['chunks_per_minute']:.1f}",
            f"{line['cpu_seconds_per_chunk']:.2f}", f"{line['psnr']:.2f}",
        ])  # fmt: skip
    header = ("field", "chunk", "ratio", "group", "chunks a minute", "CPU s a chunk", "PSNR, dB")
    return markdown(header, rows) + origin(lines)


# ------------------------------------------------------------------------------ zeros.jsonl


def repeated() -> str:
    """Tabulate PSNR of fields with repeated values at each ratio, with SZ3's."""
    return zeros.decibels(results("zeros")) + origin(results("zeros"))


def biases() -> str:
    """Tabulate how far the mean of these fields is off at each ratio, with SZ3's."""
    return zeros.biases(results("zeros")) + origin(results("zeros"))


# ------------------------------------------------------------------------------ experts.jsonl


def linear_experts() -> str:
    """Tabulate what linear experts add at each ratio, and what they cost."""
    return experts.table(results("experts"), FIELDS) + origin(results("experts"))


def experts_and_video() -> str:
    """Tabulate integers with and without linear experts beside video codecs."""
    lines = [line for line in results("experts") if line["dtype"][1] in "iu"]
    return experts.beside_video(lines, FIELDS) + origin(lines)


# ------------------------------------------------------------------------------ cells.jsonl


def by_photons() -> dict[float, dict[str, Line]]:
    """Group the lines of pictures by their photons, then by codec, ratio or bound."""
    found: dict[float, dict[str, Line]] = {}
    for line in results("cells"):
        name = line["codec"]
        if name == OURS:
            name = f"{line['ratio']:g}x" if "ratio" in line else f"bound {line['share']:g}"
        found.setdefault(line["photons"], {})[name] = line
    return found


def of_pictures(header: str, names: dict[str, str], cell: Callable[[Line], str]) -> str:
    """Tabulate a figure of every picture, a column for each number of photons."""
    found = by_photons()
    rows = [[text, *(cell(lines[name]) for lines in found.values())] for name, text in names.items()]
    shown = [lines[name] for lines in found.values() for name in names if name != cells.SECOND]
    return markdown([header, *(f"{photons:g} photons" for photons in found)], rows) + origin(shown)


AT_RATIOS = {f"{ratio:g}x": f"{ratio:g}x" for ratio in cells.RATIOS}
BESIDE = {"zstd": "the picture itself", cells.SECOND: "a second picture"} | AT_RATIOS
IN_BOUNDS = {f"bound {share:g}": f"{share:g} sigma" for share in cells.BOUNDS}


def picture_error() -> str:
    """Tabulate the error against the image without noise, in units of the noise; the least stands out."""
    least = {
        p: min(x["error_to_clean"] for x in lines.values() if "ratio" in x)
        for p, lines in by_photons().items()
    }

    def cell(line: Line) -> str:
        text = f"{line['error_to_clean']:.2f}"
        return f"**{text}**" if line["error_to_clean"] == least[line["photons"]] else text

    return of_pictures("ratio", AT_RATIOS, cell)


def picture_counts() -> str:
    """Tabulate how many nuclei are found, and how many of them are right."""
    return of_pictures("ratio", BESIDE, lambda line: f"{line['found']} / {line['matched']}")


def picture_dice() -> str:
    """Tabulate Dice against the cells, and against what is found in the picture itself."""
    return of_pictures(
        "ratio", BESIDE, lambda line: f"{line['dice_truth']:.3f} / {line['dice_original']:.3f}"
    )


def picture_brightness() -> str:
    """Tabulate how far the brightness of a nucleus is off, in the mean over nuclei."""
    return of_pictures(
        "ratio",
        {name: text for name, text in BESIDE.items() if name != "zstd"},
        lambda line: f"{100 * line['intensity_error']:.1f} %",
    )


def picture_bounds() -> str:
    """Tabulate ratios, and Dice against what is found in the picture itself, within bounds."""
    return of_pictures(
        "bound",
        IN_BOUNDS,
        lambda line: f"{nbytes(line) / line['bytes']:,.0f}x ({line['dice_original']:.3f})",
    )


def picture_noise() -> str:
    """Tabulate what noise alone allows of a lossless codec, and what two of them reach."""
    rows = []
    for photons, lines in by_photons().items():
        bits = lines["zstd"]["entropy"]
        reached = [f"{nbytes(lines[name]) / lines[name]['bytes']:.1f}x" for name in cells.LOSSLESS]
        rows.append([f"{photons:g}", f"{bits:.2f}", f"{16 / bits:.1f}x", *reached])
    header = ("photons", "noise, bits a voxel", "lossless at most", *cells.LOSSLESS)
    lines = [line for line in results("cells") if line["codec"] in cells.LOSSLESS]
    return markdown(header, rows) + origin(lines)


def of(name: str, table: Callable[[list[Line]], str]) -> str:
    """Write a table that a benchmark makes of its own results."""
    lines = results(name)
    return table(lines) + origin(lines)


TABLES: dict[str, Callable[[], str]] = {
    "medians": partial(of, "rd", beside.medians),
    "in-short": partial(of, "rd", in_short),
    "fields": partial(of, "rd", ratios),
    "lost": partial(of, "rd", lost),
    "integers": partial(of, "rd", integers),
    "bounds": partial(of, "rd", beside.bytes_at_bounds),
    "bounds-by-field": partial(of, "rd", bounds),
    "dictionaries": partial(of, "dictionary", dictionary.table),
    "dictionary-medians": partial(of, "dictionary", dictionary.medians),
    "efforts": efforts,
    "memory": memory,
    "reads": reads,
    "groups": groups,
    "quality": quality,
    "repeated": repeated,
    "linear-experts": linear_experts,
    "experts-and-video": experts_and_video,
    "biases": biases,
    "picture-noise": picture_noise,
    "picture-error": picture_error,
    "picture-counts": picture_counts,
    "picture-dice": picture_dice,
    "picture-brightness": picture_brightness,
    "picture-bounds": picture_bounds,
    "relative": partial(of, "relative", relative.tabulate),
    "target-guide": partial(of, "targets", targets.tabulate_guide),
    "target-kept": partial(of, "targets", targets.tabulate_kept),
    "target-levels": partial(of, "targets", targets.tabulate_levels),
    "target-rain": partial(of, "targets", targets.tabulate_rain),
}


def main() -> None:
    """Write the tables into the pages, and the pictures beside them."""
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    images = ROOT / "docs" / "images"
    pictures.plot_times(results("rd"), images / "psnr_by_time.png")
    pictures.plot_quality(
        results("rd"), {name: FIELDS[name] for name in PICTURED}, images / "psnr_by_ratio.png"
    )


if __name__ == "__main__":
    main()
