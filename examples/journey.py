# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""From files to an archive and on, with commands: ``python examples/journey.py [FOLDER] [S3_ENDPOINT]``.

Months of a small model, as its files would be: packed integers, a land mask, names of stations, a grid
mapping and the bounds of time steps beside the fields. Two are planned, tried, converted, killed, resumed,
verified and repaired, and a third is appended. Then the archive is looked into, reported on and compared with
its source, with a picture (out.png). With the
address of an S3 server, where the bucket "journey" must exist, an archive is made there too.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

from moec_zarr.demo.simulate import simulate

DAYS = 8  # of a month, here
MONTHS = 3


def write_files(folder: Path) -> list[Path]:
    """A file a month, with times counted from its own beginning."""
    fields = simulate((MONTHS * DAYS, 1, 24, 24))[["temperature", "tracer"]].isel(level=0, drop=True)
    days = xr.date_range("2026-01-01", periods=MONTHS * DAYS, freq="D")
    ds = fields.assign_coords(time=days)
    ds["time_bnds"] = (("time", "nv"), np.stack([days, days + np.timedelta64(1, "D")], axis=1))
    ds["land"] = (("y", "x"), (ds.temperature[0].values > 260).astype("i1"))
    ds["land"].attrs = {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "sea land"}
    ds["station"] = ("y", np.array([f"station {i}" for i in range(ds.sizes["y"])]))
    ds["crs"] = ((), np.int32(0), {"grid_mapping_name": "transverse_mercator"})
    ds.time.attrs["bounds"] = "time_bnds"
    ds.tracer.encoding = {"dtype": "i2", "scale_factor": 0.01, "_FillValue": np.int16(-32768)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for month in range(MONTHS):
        part = ds.isel(time=slice(month * DAYS, (month + 1) * DAYS))
        part.time.encoding = {"units": f"hours since {part.time.dt.strftime('%Y-%m-%d').values[0]}"}
        paths.append(folder / f"month-{month + 1}.nc")
        part.to_netcdf(paths[-1])
    return paths


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "moec_zarr.cli", *map(str, arguments)]


def moec_zarr(*arguments: object, expect: int = 0) -> str:
    """Run a command, show it, and return what it prints."""
    print("\n$ moec-zarr", *arguments, flush=True)
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    print(done.stdout + done.stderr, flush=True)
    if done.returncode != expect:
        raise SystemExit(f"ended with {done.returncode}, expected {expect}")
    return done.stdout


def convert_and_kill(archive: Path, *arguments: object) -> None:
    """Begin a conversion, and end it in the middle without a chance to tidy up."""
    print("\n$ moec-zarr", *arguments, "  # and kill -9 after the first chunk", flush=True)
    run = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
    while run.poll() is None and not list(archive.glob("*/.moec_zarr/[0-9]*.json")):
        time.sleep(0.02)
    run.kill()
    run.wait()


def main(folder: Path, endpoint: str | None = None) -> None:
    files = write_files(folder / "model")
    archive = folder / "archive.zarr"
    settings = ["--ratio", 10, "--effort", "fast", "--chunks", "time=2", "--workers", 2]
    settings += ["--var", "temperature", "--var", "tracer:max_error=0.05"]  # no value is further off
    first = ["convert", f"{folder}/model/month-[12].nc", archive]

    # What would be done, how long it takes, and what a chunk becomes at easier and harder targets.
    moec_zarr(*first, *settings, "--dry-run")
    moec_zarr(*first, *settings, "--trial", 1)

    # A run that was killed is continued by the same command. Its lock is in the way only of other machines.
    convert_and_kill(archive, *first, *settings)
    print("the store says:", xr.open_zarr(archive, consolidated=False).attrs["moec_zarr_status"])
    moec_zarr(*first, *settings)

    # Damage is found, and made good from the source.
    chunk = archive / "temperature/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    moec_zarr("verify", archive, expect=1)
    moec_zarr("verify", archive, "--against", f"{folder}/model/month-[12].nc", "--repair", "--workers", 1)

    # A new month. All files may be named: what the archive has is not made again.
    moec_zarr("convert", f"{folder}/model/*.nc", archive, "--append", "time", "--workers", 2)
    found = json.loads(moec_zarr("verify", archive, "--against", f"{folder}/model/*.nc", "--json"))
    print("whole:", found["ok"], "of", found["variables"]["temperature"]["chunks"], "chunks")

    # What is stored, how good it is, and a page of it all to look at.
    moec_zarr("inspect", archive)
    moec_zarr("inspect", archive, "--quality")
    moec_zarr("report", archive, "--against", f"{folder}/model/*.nc", "-o", folder / "report.html")
    moec_zarr(
        "compare", f"{folder}/model/*.nc", archive, "--var", "temperature", "--plot", folder / "out.png"
    )

    if endpoint is not None:
        options = ["--storage-option", f"endpoint_url={endpoint}"]
        remote = "s3://journey/archive.zarr"
        moec_zarr("convert", files[0], remote, *settings, *options)
        moec_zarr("convert", files[1], remote, "--append", "time", "--workers", 2, *options)
        moec_zarr("verify", remote, "--against", f"{folder}/model/month-[12].nc", *options)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "journey"), *sys.argv[2:3])
