"""A pytest plugin: zarr's default serializer becomes this package's, and known failures are expected.

It is loaded by `run.py`. A known failure that passes fails the run, so that the list stays true.
"""

from __future__ import annotations

import json
import re
import tomllib
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import zarr.core.array

from moec_zarr import MoECSerializer
from moec_zarr.adapters.zarr_codec import check_array
from moec_zarr.errors import UnsupportedArrayError

KNOWN = tomllib.loads((Path(__file__).parent / "known_failures.toml").read_text(encoding="utf-8"))
SERIALIZER = MoECSerializer(max_error=0, effort="fast")  # lossless, and without torch

streams = count()  # what is written with the serializer


def supported(dtype: Any) -> bool:
    """Whether arrays of this zarr data type can be written."""
    try:
        check_array((), dtype.to_native_dtype())
    except (UnsupportedArrayError, TypeError):  # TypeError: zarr's tests invent data types that NumPy lacks
        return False
    return True


def inject() -> None:
    """Let zarr choose the serializer, and no compressors, wherever the caller leaves the choice to it."""
    serializer, compressors = zarr.core.array.default_serializer_v3, zarr.core.array.default_compressors_v3
    encode = MoECSerializer._encode_sync

    def choose_serializer(dtype: Any) -> Any:
        return SERIALIZER if supported(dtype) else serializer(dtype)

    def choose_compressors(dtype: Any) -> Any:
        return () if supported(dtype) else compressors(dtype)

    def encode_counted(*args: Any) -> Any:
        next(streams)
        return encode(*args)

    zarr.core.array.default_serializer_v3 = choose_serializer
    zarr.core.array.default_compressors_v3 = choose_compressors
    MoECSerializer._encode_sync = encode_counted


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", type=Path, required=True, help="JSON file for the numbers of outcomes")
    parser.addoption("--plain", action="store_true", help="leave zarr's default serializer as it is")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--plain"):
        inject()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kinds = ["without it too"] if config.getoption("--plain") else list(KNOWN)
    for kind in kinds:
        for reason, patterns in KNOWN[kind].items():
            known = re.compile("|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns))
            for item in items:
                if known.fullmatch(item.nodeid):
                    item.add_marker(pytest.mark.xfail(reason=f"{kind}: {reason}", strict=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    stats = terminalreporter.stats
    expected = [report.wasxfail.partition(":")[0] for report in stats.get("xfailed", [])]
    counts = {
        "passed": len(stats.get("passed", [])),
        "failed": len(stats.get("failed", [])) + len(stats.get("error", [])),
        **{kind: expected.count(kind) for kind in KNOWN},
        # A suite's own expected failures are no concern of this package either.
        "skipped": len(stats.get("skipped", [])) + sum(kind not in KNOWN for kind in expected),
        "streams": next(streams),
    }
    config.getoption("--counts").write_text(json.dumps(counts), encoding="utf-8")
