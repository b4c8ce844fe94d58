# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]", "aiohttp"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""A slice of a store behind a web server: ``python examples/remote_slice.py [FOLDER]``.

The server here is one of files, on this machine. Of the store the reader fetches the metadata and the
streams of the chunks that the slice touches, and evaluates only the voxels of the slice. Writes
``slice.png``.
"""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import xarray as xr

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate
from moec_zarr.report.comparison.plot import plot_comparison


class Counting(SimpleHTTPRequestHandler):
    """A server of files that counts the bytes of the chunks it sends."""

    sent = 0

    def copyfile(self, source, outputfile):
        content = source.read()
        Counting.sent += len(content) if "/c/" in self.path else 0
        outputfile.write(content)

    def log_message(self, *_):
        pass


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ds = simulate((16, 1, 48, 48))[["temperature"]]
    ds = ds.isel(level=0, drop=True).chunk(time=4)
    encoding = moec_zarr.encoding(ds, MoECCodec(ratio=50, effort="fast"))
    ds.to_zarr(folder / "remote.zarr", mode="w", encoding=encoding)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = xr.open_zarr(f"http://127.0.0.1:{server.server_port}/remote.zarr")
        one = remote.temperature.isel(time=5).load()
        server.shutdown()
    original = ds.temperature.isel(time=5).load()
    psnr = moec_zarr.compare(original, one).psnr
    print(f"temperature: {one.nbytes} bytes of values from {Counting.sent} bytes of chunks, {psnr:.1f} dB")
    plot_comparison(original, one, folder / "slice.png", psnr=psnr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "remote_slice"))
