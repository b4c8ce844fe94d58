"""An archive of many chunks, converted, killed, resumed and compared with an undisturbed run.

``python benchmarks/archive.py [--gb 1] [--work DIR]`` simulates a source, writes it as NetCDF and as zarr,
and then, with a local cluster of two workers and effort fast:

1. converts it from zarr, undisturbed;
2. converts the NetCDF file, while ``kill -9`` ends first a worker, then the whole run, in the middle;
3. gives the same command again, and compares every chunk byte for byte with that of an undisturbed run;
4. fits a sample of the chunks bare, in two processes without dask or zarr, for the overhead of all the rest,
   in time and in memory;
5. converts ``--small`` chunks that are constant, and so take no time to fit, for the rate of scheduling.

Step 2 starts from NetCDF and step 1 from zarr: both hold the same values, so the chunks must be equal too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import xarray as xr
import zarr

from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.demo.simulate import simulate
from moec_zarr.settings import Settings

WORKERS = 2
VARIABLES = 3  # of the simulation
SIDES = (8, 128, 128)  # level, y, x


def make_source(work: Path, times: int) -> None:
    """The same dataset as NetCDF and as zarr, in chunks of 8 hours, simulated a piece at a time."""
    if (work / "source.done").exists():
        return
    ds = simulate((times, *SIDES))
    ds.to_netcdf(
        work / "source.nc", encoding={name: {"chunksizes": (min(8, times), *SIDES)} for name in ds.data_vars}
    )
    chunked = {name: {"chunks": (min(8, times), *SIDES)} for name in ds.data_vars}
    ds.to_zarr(work / "source.zarr", mode="w", encoding=chunked, consolidated=False)
    (work / "source.done").touch()


def command(source: Path, destination: Path, ratio: float, chunk: int) -> list[str]:
    options = f"--ratio {ratio:g} --effort fast --chunks time={chunk} --workers {WORKERS} --json".split()
    return [sys.executable, "-m", "moec_zarr.cli", "convert", str(source), str(destination), *options]


class Run:
    """A conversion in a process of its own, whose workers' peak memory is watched."""

    def __init__(self, arguments: list[str]) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        self.peak: dict[int, int] = {}
        self._over = Event()
        self._watch = Thread(target=self._record_peaks, daemon=True)
        self._watch.start()

    def workers(self) -> list[psutil.Process]:
        """Processes started by dask's nannies: children that import the package."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if self.peak.get(child.pid, 0) > 150e6]

    def _record_peaks(self) -> None:
        while not self._over.wait(0.2):
            try:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                    peak = next((line for line in lines if line.startswith("VmHWM")), None)
                    if peak:
                        self.peak[child.pid] = int(peak.split()[1]) * 1024
            except (psutil.NoSuchProcess, FileNotFoundError):
                continue  # it has just ended

    def finish(self) -> tuple[dict, float]:
        out, _ = self.process.communicate()
        self._over.set()
        self._watch.join()
        if self.process.returncode:
            raise SystemExit(f"the conversion ended with {self.process.returncode}")
        return json.loads(out), time.perf_counter() - self.started

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._over.set()
        self._watch.join()


def records(destination: Path) -> dict[str, tuple[int, str]]:
    """Of each finished task: when its record was written, and what it says."""
    return {
        str(path.relative_to(destination)): (path.stat().st_mtime_ns, path.read_text())
        for path in sorted(destination.glob("*/.moec_zarr/[0-9]*.json"))
    }


def span(destination: Path) -> float:
    """Seconds from the beginning of the first task to the end of the last one."""
    ended = [(written / 1e9, json.loads(text)["seconds"]) for written, text in records(destination).values()]
    return max(end for end, _ in ended) - min(end - seconds for end, seconds in ended)


def wait_for(destination: Path, count: int, run: Run) -> None:
    while len(records(destination)) < count:
        if run.process.poll() is not None:
            raise SystemExit("the conversion ended before it could be killed; take a larger source")
        time.sleep(0.1)


def chunk_bytes(destination: Path) -> dict[str, bytes]:
    """Every stored chunk, coordinates included."""
    return {
        str(path.relative_to(destination)): path.read_bytes()
        for path in sorted(destination.glob("*/c/**/*"))
        if path.is_file()
    }


def small_tasks(work: Path, count: int) -> float:
    """Tasks a second where there is next to nothing to fit."""
    source, destination = work / "small-source.zarr", work / "small.zarr"
    steps = np.arange(1, count + 1, dtype="f4")
    values = np.broadcast_to(steps[:, None, None], (count, 16, 32))
    ds = xr.Dataset({"a": (("time", "y", "x"), values)})
    ds.to_zarr(source, mode="w", encoding={"a": {"chunks": (256, 16, 32)}}, consolidated=False)
    subprocess.run(["rm", "-rf", str(destination)], check=True)
    run = Run(command(source, destination, 5, 1))
    run.finish()
    return count / span(destination)


def bare_fit(path: str, name: str, start: int, chunk: int, ratio: float) -> tuple[float, int]:
    """Seconds that one fit takes by itself, and the peak memory of its process so far."""
    values = np.ascontiguousarray(zarr.open_array(path, path=name, mode="r")[start : start + chunk])
    begun = time.perf_counter()
    with config.set(threads=1, progress=False):
        encode(values, Settings(ratio=ratio, effort="fast"), fill_value=np.nan)
    seconds = time.perf_counter() - begun
    return seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=1.0, help="size of the source")
    parser.add_argument("--ratio", type=float, default=1000.0)
    parser.add_argument("--chunk", type=int, default=16, help="hours a chunk; 16 are 8.4 MB")
    parser.add_argument("--sample", type=int, default=8, help="bare fits to time; each chunk is one at most")
    parser.add_argument("--small", type=int, default=10_000, help="constant chunks to schedule")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/results/archive"))
    arguments = parser.parse_args()
    work, chunk, ratio = arguments.work, arguments.chunk, arguments.ratio
    work.mkdir(parents=True, exist_ok=True)

    hour = VARIABLES * 4 * int(np.prod(SIDES))
    times = max(3 * chunk, round(arguments.gb * 1e9 / hour / chunk) * chunk)
    tasks = VARIABLES * times // chunk
    make_source(work, times)
    print(
        f"source: {times * hour / 1e9:.3g} GB, {tasks} chunks of {chunk * hour / VARIABLES / 1e6:.3g} MB",
        flush=True,
    )
    for name in ("whole.zarr", "killed.zarr"):
        subprocess.run(["rm", "-rf", str(work / name)], check=True)

    run = Run(command(work / "source.zarr", work / "whole.zarr", ratio, chunk))
    result, wall = run.finish()
    done = [json.loads(text) for _, text in records(work / "whole.zarr").values()]
    workers = sorted(run.peak.values())[-WORKERS:]
    print(f"undisturbed: {wall:.1f} s for {len(done)} tasks; peak memory of the workers "
          f"{', '.join(f'{peak / 1e6:.0f} MB' for peak in workers)}", flush=True)  # fmt: skip
    for name, each in result["variables"].items():
        print(f"  {name}: {each['ratio']:.1f}x, {each['psnr']:.2f} dB")

    killed = work / "killed.zarr"
    again = command(work / "source.nc", killed, ratio, chunk)
    run = Run(again)
    wait_for(killed, max(1, tasks // 5), run)
    victim = run.workers()[0]
    victim.kill()
    print(f"killed a worker after {len(records(killed))} tasks", flush=True)
    wait_for(killed, max(2, tasks // 2), run)
    orphans = psutil.Process(run.process.pid).children(recursive=True)
    run.kill()
    _, alive = psutil.wait_procs(orphans, timeout=30)
    before = records(killed)
    print(f"killed the run after {len(before)} tasks; processes left of it: {len(alive)}", flush=True)
    run = Run(again)
    result, rest = run.finish()
    after = records(killed)
    refitted = sum(after[name] != record for name, record in before.items())
    left = tasks - len(before)
    print(f"resumed: {rest:.1f} s for {left} tasks; {result['resumed']} taken over, {refitted} refitted")
    one, other = chunk_bytes(work / "whole.zarr"), chunk_bytes(killed)
    differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    print(
        f"chunks: {len(one)} undisturbed, {len(other)} killed and resumed, {len(differ)} differ {differ[:3]}",
        flush=True,
    )

    names = list(result["variables"])
    every = [(name, start) for start in range(0, times, chunk) for name in names]
    sample = every[:: max(1, len(every) // arguments.sample)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        jobs = [(str(work / "source.zarr"), name, start, chunk, ratio) for name, start in sample]
        pool.starmap(bare_fit, jobs[:WORKERS], chunksize=1)  # what is loaded once is not counted
        fits = pool.starmap(bare_fit, jobs, chunksize=1)
    bare = statistics.mean(seconds for seconds, _ in fits)
    lean = max(peak for _, peak in fits)
    print(f"bare fits: {bare:.2f} s each ({len(fits)} of them, {WORKERS} at a time); a task: "
          f"{statistics.mean(each['seconds'] for each in done):.2f} s")  # fmt: skip
    busy = span(work / "whole.zarr")
    more = 100 * (busy * WORKERS / (bare * tasks) - 1)
    print(f"overhead: {more:.1f} % over bare fits, and {wall - busy:.1f} s to start and end")
    print(f"a worker takes {(max(workers) - lean) / 1e6:.0f} MB beside the {lean / 1e6:.0f} MB of a bare fit")
    print(f"small tasks: {small_tasks(work, arguments.small):.0f} a second", flush=True)
    with xr.open_zarr(killed) as ds:
        print(ds.attrs["history"])
    if differ or refitted or alive:
        raise SystemExit("FAILED")


if __name__ == "__main__":
    main()
