"""What the lines of ``benchmarks.rd`` say: this codec beside peers, in tables of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from benchmarks.peers import PEERS
from benchmarks.records import OURS, Line, latest, markdown, million, nbytes, series

FAST = f'{OURS}, "fast"'
SPERR = "SPERR"
TERABYTE = 0.25e6  # million voxels of float32
EXACT = 999.0  # dB in place of that of exact values
Places = dict[str, dict[str, dict[str, Line]]]


def target_of(line: Line) -> str:
    """The ratio, or the bound over the range, as tables have it."""
    return f"{line['ratio']:g}x" if "ratio" in line else f"bound {line['share']:g}"


def places(lines: Iterable[Line]) -> Places:
    """Group what was reached by target, by field and by codec; high ratios first, then wide bounds."""
    reached = [
        {**line, "psnr": EXACT} if line["psnr"] is None and not line["largest"] else line
        for line in latest(lines)
        if "bytes" in line
    ]
    reached.sort(key=lambda line: (-line.get("ratio", 0.0), -line.get("share", 0.0)))
    found: Places = {}
    for line in reached:
        found.setdefault(target_of(line), {}).setdefault(line["field"], {})[series(line)] = line
    return found


def encoding(line: Line) -> float:
    """CPU seconds a million voxels."""
    return float(line["encode_cpu"] / million(line))


def decoding(line: Line) -> float:
    """CPU seconds a million voxels."""
    return float(line["decode_cpu"] / million(line))


def gain(line: Line, other: Line) -> float:
    """How much better a line is: in dB at a ratio, at a bound what the other takes more of its bytes."""
    if "ratio" in line:
        return float(line["psnr"] - other["psnr"])
    return float(other["bytes"] / line["bytes"] - 1)


def medians(lines: list[Line]) -> str:
    """Tabulate times, also over those of SPERR, and quality beside it, in the median over fields."""
    rows = []
    for target, fields in places(lines).items():
        for codec in [FAST, *PEERS]:
            each = [codecs for codecs in fields.values() if codec in codecs and SPERR in codecs]
            if each:
                rows.append([target, codec, str(len(each)), *_row(each, codec)])
    header = (
        "target", "codec", "fields", "encode, CPU s/M", "times SPERR", "decode, CPU s/M", "times SPERR",
        "beside SPERR, median", "worst", "CPU hours to encode 1 TB",
    )  # fmt: skip
    return markdown(header, rows, text_columns=2) + "\n" + costs(lines)


def _row(each: list[dict[str, Line]], codec: str) -> list[str]:
    def over_sperr(figure: Callable[[Line], float]) -> str:
        return f"{statistics.median(figure(of[codec]) / figure(of[SPERR]) for of in each):.2g}"

    own = [of[codec] for of in each]
    seconds = statistics.median(map(encoding, own))
    if "ratio" in own[0]:
        gains = [of[codec]["psnr"] - of[SPERR]["psnr"] for of in each]
        beside, worst = f"{statistics.median(gains):+.2f} dB", f"{min(gains):+.2f} dB"
    else:
        shares = [100 * of[codec]["bytes"] / of[SPERR]["bytes"] for of in each]
        beside, worst = f"{statistics.median(shares):.0f} % of bytes", f"{max(shares):.0f} %"
    return [
        f"{seconds:.3f}", over_sperr(encoding), f"{statistics.median(map(decoding, own)):.3f}",
        over_sperr(decoding), *((beside, worst) if codec != SPERR else ("", "")),
        f"{seconds * TERABYTE / 3600:.3g}",
    ]  # fmt: skip


def best_peer(codecs: dict[str, Line]) -> Line | None:
    """The line of the peer with the highest PSNR at a ratio, with the fewest bytes at a bound."""
    peers = [line for line in codecs.values() if line["codec"] != OURS]
    key = (lambda line: line["psnr"]) if peers and "ratio" in peers[0] else (lambda line: -line["bytes"])
    return max(peers, key=key, default=None)


def figure(line: Line) -> str:
    """PSNR of a line at a ratio, its ratio at a bound."""
    if "ratio" not in line:
        return f"{nbytes(line) / line['bytes']:.1f}x"
    return f"{line['psnr']:.2f}" if line["psnr"] < EXACT else "exact"


def by_field(lines: list[Line], names: dict[str, str]) -> str:
    """Tabulate each field at each target, with the best peer in brackets."""
    found = places(lines)
    rows = []
    for name, text in names.items():
        cells = []
        for fields in found.values():
            codecs = fields.get(name, {})
            peer = best_peer(codecs)
            cell = figure(codecs[FAST]) if FAST in codecs else ""
            cells.append(cell + (f" ({peer['codec']} {figure(peer)})" if peer else ""))
        if any(cells):
            rows.append([text, *cells])
    return markdown(["field", *found], rows)


def lost(lines: list[Line], names: dict[str, str]) -> str:
    """Tabulate the fields and targets at which a peer is better, and which one."""
    rows = []
    for target, fields in places(lines).items():
        for name, codecs in fields.items():
            ours = codecs.get(FAST)
            others = [line for line in codecs.values() if ours and gain(line, ours) > 0]
            others.sort(key=lambda line: -gain(line, ours or line))
            if ours and others:
                peers = ", ".join(f"{line['codec']} {figure(line)}" for line in others)
                seconds = ", ".join(f"{encoding(line):.2f}" for line in others)
                rows.append(
                    [names.get(name, name), target, figure(ours), peers, f"{encoding(ours):.2f}", seconds]
                )
    header = ("field", "target", OURS, "better", f"{OURS}, CPU s/M", "the others")
    return markdown(header, rows, text_columns=2)


def of_integers(lines: list[Line], names: dict[str, str] | None = None) -> str:
    """Tabulate PSNR and times of integer fields at ratios, video codecs included; the best one stands out."""
    codecs = [FAST, SPERR, *(name for name, peer in PEERS.items() if peer.integers), "JPEG XL"]
    rows = []
    for target, fields in places(lines).items():
        for name, found in fields.items():
            if not any(line["dtype"][1] in "iu" and "ratio" in line for line in found.values()):
                continue
            best = max(line["psnr"] for line in found.values())
            cells = []
            for line in map(found.get, codecs):
                text = f"{line['psnr']:.2f}" if line else "-"
                if line:
                    text = f"**{text}**" if line["psnr"] == best else text
                    text += f" ({encoding(line):.2f})"
                cells.append(text)
            rows.append([(names or {}).get(name, name), target, *cells])
    rows.sort(key=lambda row: row[0])
    return markdown(["field", "ratio", *codecs], rows, text_columns=2)


def bytes_at_bounds(lines: list[Line]) -> str:
    """Tabulate the bytes of this codec over the fewest of any peer at each bound."""
    rows = []
    for target, fields in places(lines).items():
        found = [(codecs[FAST], best_peer(codecs)) for codecs in fields.values() if FAST in codecs]
        shares = [ours["bytes"] / peer["bytes"] for ours, peer in found if peer and "share" in ours]
        if shares:
            values = (statistics.median(shares), min(shares), max(shares))
            rows.append([target, *(f"{value:.3f}" for value in values)])
    return markdown(["bound", "median", "least", "most"], rows)


def in_short(lines: list[Line], names: dict[str, str]) -> str:
    """Tabulate this codec beside SPERR at each target, in the median over fields, and say who else wins."""
    rows = []
    for target, each in _both(lines).items():
        seconds, slower, _, reading, median, worst, hours = _row(each, FAST)
        rows.append([target, median, worst, seconds, slower, reading, hours])
    header = (
        "target", "beside SPERR, median", "worst field", "encode, CPU s/M", "times SPERR",
        "decode, times SPERR", "CPU hours to encode 1 TB",
    )  # fmt: skip
    return markdown(header, rows) + "\n" + winners(lines, names)


def costs(lines: list[Line]) -> str:
    """Say how many times slower than SPERR writing and reading are, and what a terabyte takes."""
    found = {target: _row(each, FAST) for target, each in _both(lines).items()}
    if not found:
        return ""
    writing, reading = ([float(row[column]) for row in found.values()] for column in (1, 3))
    hours = ", ".join(f"{row[-1]} at {target}" for target, row in found.items())
    writes, reads = (f"{min(times):g} to {max(times):g} times" for times in (writing, reading))
    return (
        f'Effort "fast" writes {writes} slower than SPERR, in the median over fields; reading takes\n'
        f"{reads} its CPU time. To encode a terabyte of float32 (0.25 million million voxels) takes so\n"
        f"many CPU hours: {hours}.\n"
    )


def winners(lines: list[Line], names: dict[str, str]) -> str:
    """Say which fields other codecs come closer on, or take fewer bytes for, and which of them does best."""
    won: dict[str, list[str]] = {}
    for target, fields in places(lines).items():
        for name, codecs in fields.items():
            peer = best_peer(codecs)
            if peer and FAST in codecs and gain(peer, codecs[FAST]) > 0:
                won.setdefault(names.get(name, name), []).append(f"{peer['codec']} at {target}")
    said = "; ".join(f"{name}: {', '.join(each)}" for name, each in won.items())
    return f"Another codec is better on {said}.\n" if said else "No peer is better on any of these fields.\n"


def _both(lines: list[Line]) -> dict[str, list[dict[str, Line]]]:
    """The fields of each target that both this codec and SPERR reach."""
    found = {
        target: [codecs for codecs in fields.values() if FAST in codecs and SPERR in codecs]
        for target, fields in places(lines).items()
    }
    return {target: each for target, each in found.items() if each}
