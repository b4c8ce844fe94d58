from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import xarray as xr

from tests.support.s3 import s3_server

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(example, *arguments, **environment):
    pytest.importorskip("distributed")
    pytest.importorskip("torch")
    command = [sys.executable, example, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example, tmp_path):
    if example.stem in ("journey", "rain_and_humidity"):
        pytest.skip("it has a test of its own")
    if example.stem == "ome_zarr_image":
        pytest.importorskip("ome_zarr")
    out = run(example, tmp_path)
    assert re.search(r"temperature|moec_zarr_ratio|times smaller", out)
    (picture,) = tmp_path.glob("*.png")
    assert picture.name in example.read_text().partition('"""')[2].partition('"""')[0]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_say_what_they_need(example):
    """PEP 723: a script runner installs it, the package from this checkout."""
    lines = re.search(r"(?ms)^# /// script\n(.*?)^# ///$", example.read_text())[1].splitlines()
    script = tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    assert script["requires-python"] == PROJECT["requires-python"]
    assert "moec-zarr[all]" in script["dependencies"]
    source = script["tool"]["uv"]["sources"]["moec-zarr"]
    assert (example.parent / source["path"] / "pyproject.toml").exists()


def test_rain_and_humidity(tmp_path):
    """Humidity is within 1 % on every level, where 70 dB lose the upper ones; rain keeps all criteria."""
    out = run(next(path for path in EXAMPLES if path.stem == "rain_and_humidity"), tmp_path)
    month = xr.load_dataset(tmp_path / "month.nc").astype("f8")
    archive, wrong = (
        xr.load_dataset(tmp_path / f"{name}.zarr", engine="zarr", consolidated=False).astype("f8")
        for name in ("archive", "wrong")
    )
    largest = (abs(archive.hus - month.hus) / month.hus).max(("time", "lat", "lon"))
    assert largest.sizes == {"plev": 8}
    assert (largest <= 0.01).all()
    assert month.hus.isel(plev=0).mean() > 1000 * month.hus.sel(plev=5000).mean()
    assert abs(wrong.hus - month.hus).sel(plev=5000).mean() > 0.5 * month.hus.sel(plev=5000).mean()

    # What follows of the bounds: sums are as close as values, and only rain close to 1 mm crosses it.
    rain, after = (ds.pr * 86400 for ds in (month, archive))
    assert (abs(after.sum("time") - rain.sum("time")) <= 0.002 * rain.sum("time") + 31 * 1e-7 * 86400).all()
    assert (abs(rain - 1).where((rain >= 1) != (after >= 1), 0) <= 0.0087).all()
    assert (after.where(rain == 0, 0) == 0).all()
    assert after.min() >= 0
    assert 0.3 < (rain == 0).mean() < 0.8

    crossed = ((rain >= 1) != (after >= 1)).sum().item()
    assert re.search(rf"crossed 1 mm, of all days +{crossed} of {rain.size} ", out)
    verdicts = dict(re.findall(r"^((?:bounds|70 dB):\n)hus: (.*)$", out, re.MULTILINE))
    assert not re.search(r"Pa \(error", verdicts["bounds:\n"])
    assert re.search(r"^bounds:\n.*\npr: keeps ", out, re.MULTILINE)
    assert re.search(r"10000, 5000 Pa \(error \d+ % of root mean square value", verdicts["70 dB:\n"])
    (picture,) = tmp_path.glob("*.png")
    assert picture.name == "rain.png"
    page = (tmp_path / "report.html").read_text()
    assert "hus" in page
    assert "pr" in page


def test_the_journey(tmp_path):
    example = next(path for path in EXAMPLES if path.stem == "journey")
    try:
        import moto  # noqa: F401
        import s3fs
    except ModuleNotFoundError:
        out = run(example, tmp_path)
    else:
        keys = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with s3_server() as url:
            s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=url).mkdir("journey")
            out = run(example, tmp_path, url, **keys)
        assert "temperature       8        0        0       0         8" in out
    assert "incomplete: " in out
    assert "1 chunk repaired" in out
    assert "whole: True of 12 chunks" in out
    assert list(tmp_path.glob("out*.png"))
    assert "max_error 0.05" in out  # of the trial
    quality = xr.open_zarr(tmp_path / "archive.zarr/tracer/.moec_zarr/quality", consolidated=False)
    assert 0 < quality.max_error.max() <= 0.05
    assert "tracer" in (tmp_path / "report.html").read_text()


def test_there_are_examples():
    assert len(EXAMPLES) >= 10
