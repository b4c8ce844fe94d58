"""Compiled code where nothing can be kept on disk, and where numba is there but of no use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.config import config
from tests.support.fields import smooth

SHAPE = 41, 41, 41  # enough numbers for compiled code
STREAM = """
import logging, sys
import numpy as np
from moec_zarr import MoECCodec
logging.basicConfig(stream=sys.stdout, format="%(message)s")
data = np.load(sys.argv[1])
codec = MoECCodec(max_error=0.01, effort="fast")
{write}
decoded = codec.decode(open(sys.argv[2], "rb").read())
assert np.abs(decoded - data).max() <= 0.01
assert "moec_zarr.bitstream.kernels" {loaded} sys.modules
print("read")
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npy"
    noise = np.random.default_rng(0).normal(0, 0.02, SHAPE).astype("f4")
    np.save(path, smooth(SHAPE) + noise)
    return path


def run(code: str, *arguments: Path, **environment: str) -> str:
    """The output of a program, in which every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        check=False, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installation_that_cannot_be_written_to(tmp_path: Path, data: Path) -> None:
    """No folder for caches beside the modules, which for root as well a file of its name sees to; no home."""
    package = tmp_path / "site" / "moec_zarr"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(moec_zarr.__file__).parent, package, ignore=ignored)
    for folder in (package, *(each for each in package.rglob("*") if each.is_dir())):
        (folder / "__pycache__").touch()
    nowhere = "/dev/null/nowhere"
    output = run(
        STREAM.format(write="open(sys.argv[2], 'wb').write(codec.encode(data))", loaded="in"),
        data, tmp_path / "stream",
        PYTHONPATH=str(package.parent), PYTHONSAFEPATH="1", PYTHONDONTWRITEBYTECODE="1",
        HOME=nowhere, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR="",
    )  # fmt: skip
    said, read = output.splitlines()
    assert read == "read"
    assert "NUMBA_CACHE_DIR" in said


def test_a_numba_that_cannot_be_imported(tmp_path: Path, data: Path) -> None:
    (tmp_path / "stream").write_bytes(MoECCodec(max_error=0.01, effort="fast").encode(np.load(data)))
    (tmp_path / "site" / "numba").mkdir(parents=True)
    (tmp_path / "site" / "numba" / "__init__.py").write_text(
        "raise ImportError('Numba needs NumPy 1.0 or less')"
    )
    root = Path(moec_zarr.__file__).parent.parent
    output = run(
        STREAM.format(write="", loaded="not in"), data, tmp_path / "stream",
        PYTHONPATH=os.pathsep.join(map(str, (tmp_path / "site", root))),
    )  # fmt: skip
    said, read = output.splitlines()
    assert read == "read"
    assert "Numba needs NumPy 1.0 or less" in said


def test_the_plain_decoder_reads_the_same(data: Path) -> None:
    codec, array = MoECCodec(max_error=0.01, effort="fast"), np.load(data)
    stream = codec.encode(array)
    with config.set(cache=0, compiled=False):
        plain = codec.decode(stream)
    with config.set(cache=0, compiled=True):
        np.testing.assert_array_equal(codec.decode(stream), plain)
