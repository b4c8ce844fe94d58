"""The report in a real browser: it renders, its controls work, nothing runs but its own script."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
import xarray as xr

import moec_zarr
from moec_zarr import MoECCodec, write_report
from tests.support.browser import CHROMIUM, browser
from tests.support.fields import smooth

pytest.importorskip("matplotlib")
pytest.importorskip("tornado")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")

SHAPE, DIMS = (4, 3, 16, 24), ("time", "level", "y", "x")
EVIL = '<script>window.evil = 1</script><img src="x" onerror="window.evil = 2">"\' onload=window.evil=3'

# Contrast of text by WCAG 2.2: relative luminance of the lighter over that of the darker.
CONTRAST = """(selector) => {
  const canvas = document.createElement("canvas").getContext("2d");
  const rgb = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colour) => {
    const [r, g, b] = rgb(colour).map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "white";
  };
  return Math.min(...[...document.querySelectorAll(selector)].map((e) => {
    const both = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  }));
}"""
TEXT = "p, td, th, h1, h2, h3, dd, dt, a, label, figcaption, summary, option"
VISIBLE = (
    '[...document.querySelectorAll("[data-key]")].filter((e) => e.offsetParent).map((e) => e.dataset.key)'
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of a store with texts that would do harm."""
    folder = tmp_path_factory.mktemp("browser")
    field = smooth(SHAPE) + np.random.default_rng(0).normal(0, 1, SHAPE).astype("f4")
    ds = xr.Dataset(
        {"v": (DIMS, field, {"units": "K", "long_name": EVIL})},
        coords={"level": ("level", [850.0, 500.0, 200.0], {"units": EVIL}), "y": np.arange(16.0)},
        attrs={"history": EVIL},
    )
    codec = MoECCodec(ratio=8, effort="fast")
    ds.to_zarr(folder / "d.zarr", encoding=moec_zarr.encoding(ds, codec, variables=["v"]), consolidated=False)
    write_report(folder / "d.zarr", folder / "r.html", against=ds)
    return folder / "r.html"


def in_browser(tmp_path, visit):
    async def run():
        async with browser(tmp_path / "profile") as page:
            return await visit(page)

    return asyncio.run(run())


def test_it_renders_and_its_controls_work(report, tmp_path):
    async def visit(page):
        await page.look(1280, "light")
        await page.open(report)
        assert await page.value(VISIBLE) == ["0,0"]
        said = await page.value("document.querySelector('[role=status]').textContent")
        assert "index 0" in said
        # By the keyboard alone.
        for _ in range(20):
            await page.press("Tab")
            if await page.value("document.activeElement.id") == "v0-c0":
                break
        assert await page.value("document.activeElement.id") == "v0-c0"
        await page.press("ArrowDown")
        assert await page.value(VISIBLE) == ["1,0"]
        await page.press("Tab")
        await page.press("ArrowDown")
        assert await page.value(VISIBLE) == ["1,1"]
        after = await page.value("document.querySelector('[role=status]').textContent")
        assert after != said
        assert "500" in after
        # Every picture has a size, and the maps hold images that were decoded.
        sizes = await page.value(
            '[...document.querySelectorAll("figure svg")].filter((e) => e.checkVisibility())'
            ".map((e) => e.getBoundingClientRect().height)"
        )
        assert min(sizes) > 100
        assert await page.value('document.querySelectorAll("svg image").length') >= 3 * 9
        await page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 50_000
        return page.complaints, page.requests

    complaints, requests = in_browser(tmp_path, visit)
    assert complaints == []
    assert {url.split(":")[0] for url in requests} == {"file", "data"}
    assert len([url for url in requests if url.startswith("file:")]) == 1


def test_text_of_a_store_does_not_run(report, tmp_path):
    async def visit(page):
        await page.open(report)
        assert await page.value("window.evil === undefined")
        assert await page.value("document.querySelectorAll('img').length") == 0
        assert await page.value("document.body.textContent.includes('window.evil = 1')")
        # Were it to slip through, the page's policy would stop it.
        await page.value(
            "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.evil = 4\">')"
        )
        await asyncio.sleep(0.2)
        return await page.value("window.evil === undefined"), page.complaints

    stopped, complaints = in_browser(tmp_path, visit)
    assert stopped
    assert any("Content Security Policy" in text for text in complaints)


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_is_legible_in_light_and_dark(report, tmp_path, width):
    async def visit(page):
        found = {}
        await page.open(report)
        for scheme in ("light", "dark"):
            await page.look(width, scheme)
            await page.value('document.querySelectorAll("details").forEach((e) => (e.open = true))')
            found[scheme] = (
                await page.value("document.documentElement.scrollWidth - innerWidth"),
                await page.value(f"({CONTRAST})('{TEXT}')"),
                await page.value("getComputedStyle(document.body).backgroundColor"),
                await page.value('getComputedStyle(document.querySelector("figure svg text")).fill'),
            )
        return found

    found = in_browser(tmp_path, visit)
    for overflow, contrast, _, _ in found.values():
        assert overflow <= 0
        assert contrast >= 4.5
    brightness = {
        scheme: [sum(map(float, re.findall(r"[\d.]+", colour)[:3])) for colour in colours[2:]]
        for scheme, colours in found.items()
    }
    assert brightness["light"][0] > brightness["light"][1]  # dark text on a light ground
    assert brightness["dark"][0] < brightness["dark"][1]


def test_a_screen_reader_hears_names(report, tmp_path):
    async def visit(page):
        await page.open(report)
        await page.call("Accessibility.enable")
        return (await page.call("Accessibility.getFullAXTree"))["nodes"]

    nodes = in_browser(tmp_path, visit)
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert any(name.startswith("time") for name in named["combobox"])
    for role in ("combobox", "image", "region", "link", "heading"):
        assert all(name.strip() for name in named[role]), role
    assert len(named["image"]) >= 3
    assert len(named["table"]) >= 3
    assert "main" in named
