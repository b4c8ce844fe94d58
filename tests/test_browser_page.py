"""The page of ``examples/browser`` in a real browser shows what xarray reads, of stores of both formats."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import moec_zarr
from moec_zarr import MoECCodec
from tests.support.browser import CHROMIUM, browser
from tests.support.fields import smooth

pytest.importorskip("tornado")
PAGE = Path(__file__).parents[1] / "js" / "dist" / "page"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.skipif(not PAGE.exists(), reason="`make js` has not run"),
]

SHAPE, DIMS = (12, 3, 48, 72), ("time", "level", "lat", "lon")
LAND = (slice(None), slice(None), slice(5, 20), slice(30, 50))
POINT = 10, 20  # row and column that are clicked; LAND is elsewhere


@pytest.fixture(scope="module")
def dataset():
    field = (smooth(SHAPE) / 3 + 250).astype("f4")
    field[LAND] = np.nan
    return xr.Dataset(
        {
            "t": (DIMS, field, {"units": "K", "long_name": "Air temperature"}),
            "count": (DIMS[2:], np.rint(smooth(SHAPE[2:])).astype("i8"), {"units": "1"}),
        },
        coords={
            "time": xr.date_range("2026-01-30", periods=12, freq="6h"),
            "level": ("level", [850.0, 500.0, 200.0], {"units": "hPa"}),
            "lat": ("lat", np.linspace(-70.5, 70.5, 48), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(0.0, 360.0, 5.0), {"units": "degrees_east"}),
        },
    )


@pytest.fixture(scope="module", params=[2, 3])
def served(request, dataset, tmp_path_factory):
    """The folder that is served, with the page and the store in it, and the address of it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "page").symlink_to(PAGE)
    codec = MoECCodec(ratio=1000, effort="fast")
    encoding = moec_zarr.encoding(
        dataset, {"t": codec, "count": MoECCodec(max_error=0)}, zarr_format=request.param
    )
    dataset.to_zarr(folder / "d.zarr", encoding=encoding, zarr_format=request.param, consolidated=True)
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


async def settled(page, condition):
    """Wait until a condition holds on the page."""
    for _ in range(300):
        if await page.value(condition):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await page.value("document.querySelector('#message').textContent"))


def values(shown):
    """JSON has no NaN: DevTools leave it out."""
    return np.array([np.nan if value is None else value for value in shown])


SHOWN = "globalThis.shown && JSON.stringify(shown)"


def in_browser(tmp_path, visit):
    async def run():
        async with browser(tmp_path / "profile") as page:
            return await visit(page)

    return asyncio.run(run())


async def shown(page):
    return json.loads(await page.value(SHOWN))


def test_it_shows_what_xarray_reads(served, tmp_path):
    folder, address = served
    expected = xr.open_zarr(folder / "d.zarr").load()
    half = float(expected.t.max() - expected.t.min()) / 2

    async def visit(page):
        await page.look(1280, "light")
        await page.open(f"{address}/page/index.html?store=/d.zarr")
        await settled(page, "globalThis.shown !== undefined")
        found = [await shown(page)]
        for slider, step in ("time", 7), ("level", 2):
            await page.value(
                f"{{const s = document.querySelector('input[name={slider}]'); s.value = {step};"
                "s.dispatchEvent(new Event('input')); 1}"
            )
        await settled(page, "shown.index[0] === 7 && shown.index[1] === 2")
        found.append(await shown(page))
        labels = await page.value("[...document.querySelectorAll('output')].map((e) => e.value)")
        # A click in the middle of a voxel; the latitudes rise to the top.
        row, column = POINT
        across, down = (column + 0.5) / SHAPE[3], 1 - (row + 0.5) / SHAPE[2]
        await page.value(
            "{const i = document.querySelector('#map image'), b = i.getBoundingClientRect();"
            f"const clientX = b.left + {across} * b.width, clientY = b.top + {down} * b.height;"
            "i.dispatchEvent(new MouseEvent('click', {clientX, clientY})); 1}"
        )
        await settled(page, f"shown.index[2] === {row} && shown.index[3] === {column}")
        found.append(await shown(page))
        legend = await page.value("document.querySelector('#map svg').textContent")
        traffic = await page.value("document.querySelector('#traffic').textContent")
        await page.value(
            "{const s = document.querySelector('#variable'); s.value = 'count';"
            "s.dispatchEvent(new Event('change')); 1}"
        )
        await settled(page, "shown.variable === 'count'")
        found.append(await shown(page))
        return found, labels, legend, traffic, page.complaints, page.requests

    found, labels, legend, traffic, complaints, requests = in_browser(tmp_path, visit)
    for each, (time, level) in zip(found, [(0, 0), (7, 2), (7, 2)], strict=False):
        slice_ = values(each["values"]).reshape(SHAPE[2:])
        np.testing.assert_allclose(slice_, expected.t[time, level], rtol=0, atol=1e-4 * half)
    assert np.isnan(values(found[0]["values"])).sum() == 15 * 20
    series = expected.t[:, 2, POINT[0], POINT[1]]
    np.testing.assert_allclose(values(found[2]["series"]), series, rtol=0, atol=1e-4 * half)
    np.testing.assert_array_equal(values(found[3]["values"]).reshape(SHAPE[2:]), expected["count"])
    assert labels == ["2026-01-31 18:00 UTC", "200 hPa"]
    assert "missing" in legend
    assert "lon (degrees_east)" in legend
    # One chunk of temperature, at a thousandth, was fetched once for all that was looked at.
    chunks = [url for url in requests if "/t/" in url and not url.endswith((".zarray", ".zattrs", "json"))]
    assert len(chunks) == len(set(chunks)) == 1
    assert "kB in" in traffic
    assert [text for text in complaints if "404" not in text] == []  # of metadata of the other format


def test_what_cannot_be_read_is_said(served, tmp_path):
    _, address = served

    async def visit(page):
        await page.open(f"{address}/page/index.html?store=/nothing.zarr")
        await settled(page, "/did not work/.test(document.querySelector('#message').textContent)")

    in_browser(tmp_path, visit)


def test_a_worker_decodes_and_says_what_is_damaged(served, tmp_path):
    folder, address = served
    shutil.copytree(folder / "d.zarr", folder / "damaged.zarr")
    (chunk,) = (path for path in (folder / "damaged.zarr" / "t").rglob("*0") if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)

    async def visit(page):
        await page.open(f"{address}/page/index.html?store=/damaged.zarr")
        await settled(page, "/did not work/.test(document.querySelector('#message').textContent)")
        workers = "performance.getEntriesByType('resource').filter((e) => /decode.js$/.test(e.name)).length"
        return await page.value("document.querySelector('#message').textContent"), await page.value(workers)

    said, workers = in_browser(tmp_path, visit)
    assert "checksum" in said
    assert workers == 1
