"""Measurements as JSON lines: what was found, with what, on which machine; none is made twice."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import moec_zarr
from moec_zarr.report.comparison.metrics import compare

Array = NDArray[Any]
Line = dict[str, Any]

OURS = "moec_zarr"
# "beside" is the version of this codec in whose run a peer was measured.
KEY = ("benchmark", "field", "shape", "dtype", "codec", "settings", "ratio", "share", "version", "beside")
ROOT = Path(__file__).parent.parent


class Records:
    """A file of JSON lines, one a measurement, that grows and is never rewritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # a run was ended while it wrote
            os.truncate(path, len(whole))
        self.lines: list[Line] = [json.loads(line) for line in whole.splitlines()]
        self._keys = {_key(line) for line in self.lines}

    def __contains__(self, line: Line) -> bool:
        """Whether this measurement was made; only what identifies it is looked at."""
        return _key(line) in self._keys

    def earlier(self, line: Line) -> list[Line]:
        """The same measurement in other runs: beside other versions of this codec."""
        return [each for each in self.lines if _key({**each, "beside": line.get("beside")}) == _key(line)]

    def add(self, line: Line) -> None:
        """Append a measurement; it is on disk when this returns."""
        line = _plain(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self.lines.append(line)
        self._keys.add(_key(line))


def _key(line: Line) -> str:
    return json.dumps([_plain(line.get(name)) for name in KEY], sort_keys=True)


def _plain(value: Any) -> Any:
    """The value in types that JSON has; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def latest(lines: Iterable[Line]) -> list[Line]:
    """The last measurement of each kind, whatever the version, in the order of their first."""
    kinds: dict[str, Line] = {}
    for line in lines:
        kinds[_key({**line, "version": None, "beside": None})] = line
    return list(kinds.values())


def series(line: Line) -> str:
    """The codec, with its effort."""
    effort = line["settings"].get("effort")
    return f'{line["codec"]}, "{effort}"' if effort else str(line["codec"])


def million(line: Line) -> float:
    """Voxels of a line's field."""
    return math.prod(line["shape"]) / 1e6


def nbytes(line: Line) -> int:
    """Bytes of a line's field."""
    return math.prod(line["shape"]) * np.dtype(line["dtype"]).itemsize


def quality(original: Array, decoded: Array) -> Line:
    """PSNR at both peaks, NRMSE, SSIM and largest error, as the package defines them."""
    found = asdict(compare(original, decoded))
    return {name: found[name] for name in ("psnr", "psnr_dtype", "nrmse", "ssim", "max_error")}


def machine() -> Line:
    """What the seconds depend on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists() and (named := re.search(r"model name\s*: (.*)", info.read_text())):
        model = named[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": platform.system(), "processor": model or platform.machine(), "cores": cores}


def origin() -> Line:
    """What belongs into every line: the commit that was measured, and the machine."""
    return {"commit": commit(), "machine": machine()}


def commit() -> str | None:
    """The last commit that changed the package, with a "+" where it was changed since; None without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    try:
        head = git("log", "-1", "--format=%h", "--abbrev=7", "--", "moec_zarr")
        return head + "+" * bool(git("status", "--porcelain", "--", "moec_zarr")) if head else None
    except FileNotFoundError:  # there is no git
        return None


def versions(*packages: str) -> dict[str, str | None]:
    """Installed versions, None for what is absent; Python's too."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def codec_sources() -> list[Path]:
    """All modules that a stream depends on: the encoder's, and whatever they import."""
    folder = Path(moec_zarr.__file__).parent
    pending, reached = ["codec.encode"], set()
    while pending:
        path = folder / f"{pending.pop().replace('.', '/')}.py"
        if path in reached or not path.exists():
            continue
        reached.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moec_zarr"):
                module = str(node.module).removeprefix("moec_zarr").removeprefix(".")
                pending += [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
    return sorted(reached)


def codec_version(*more: Path) -> str:
    """The package's version and a digest of all sources that a stream depends on, and of `more`.

    Between two releases the number stays and the streams change; other modules than the codec's
    change without a need to measure again.
    """
    digest = hashlib.sha256()
    for path in [*codec_sources(), *more]:
        digest.update(path.read_bytes())
    return f"{moec_zarr.__version__}+{digest.hexdigest()[:8]}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows]) + "\n"
