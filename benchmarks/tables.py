"""The tables of ``docs/performance.md``, made from the results that are committed.

``python -m benchmarks.tables`` puts each between the two comments that bear its name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import bounded, speed
from benchmarks.records import Line

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
RESULTS = ROOT / "benchmarks/results"


def results(benchmark: str) -> list[Line]:
    """The committed lines of a benchmark."""
    return [json.loads(line) for line in (RESULTS / f"{benchmark}.jsonl").read_text().splitlines()]


def made() -> dict[str, str]:
    """All tables, by name."""
    speeds, bounds = results("speed"), results("bounded")
    return {
        "versions": versions(speeds + bounds),
        "medians": speed.summary(speeds),
        "fields": speed.gains(speeds),
        "reads": speed.reads(speeds),
        "bounds": bounded.summary(bounds),
    }


def versions(lines: list[Line]) -> str:
    """What was measured, on which machine, in one sentence."""
    found = sorted({line["version"] for line in lines if line["codec"].startswith("moec_zarr")})
    machines = sorted({f"{line['machine']['processor']}, {line['machine']['cores']} cores" for line in lines})
    return f"Measured: moec_zarr {', '.join(found)}; {'; '.join(machines)}.\n"


def filled(page: str) -> str:
    """A page with its tables as the results give them."""
    for name, table in made().items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if len(mark.findall(page)) != 1:
            raise ValueError(f"expected one place for the table {name!r} in the page")
        page = mark.sub(lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
