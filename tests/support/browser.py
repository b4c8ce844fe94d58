"""A page in Debian's Chromium, without a window, driven through the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium")
_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-port=0",
]  # fmt: skip
_START, _ANSWER = 60, 60  # seconds to wait at most


class Page:
    """One page, and what it complained of.

    Attributes
    ----------
    complaints : list of str
        Messages of the console and exceptions.
    requests : list of str
        All URLs that it asked for.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False

    @classmethod
    async def ready(cls, socket: Any) -> Self:
        page = cls(socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        return page

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def _next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self._socket.read_message(), _ANSWER)
        assert text is not None, "the browser has gone"
        message = json.loads(text)
        method, parameters = message.get("method"), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(parameters))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return message

    async def open(self, place: Path | str) -> None:
        """Open a file, or a URL."""
        self._loaded = False
        await self.call("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        while not self._loaded:
            await self._next()

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, in plain JSON types."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def look(self, width: int, scheme: str) -> None:
        """Set the width of the window in pixels, and "light" or "dark"."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def press(self, key: str) -> None:
        """A key on the keyboard, such as ``Tab``."""
        codes = {"Tab": 9, "ArrowDown": 40, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )

    async def screenshot(self, path: Path, *, whole: bool = True) -> None:
        result = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """An empty page of a browser whose profile is new; it ends with the context."""
    from tornado.websocket import websocket_connect

    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(profile, process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = json.load(answer)
        address = next(each["webSocketDebuggerUrl"] for each in targets if each["type"] == "page")
        socket = await websocket_connect(address, max_message_size=2**28)
        try:
            yield await Page.ready(socket)
        finally:
            socket.close()
            while await asyncio.wait_for(socket.read_message(), _ANSWER) is not None:
                pass  # until the browser has closed its end too
    finally:
        process.terminate()
        process.wait(timeout=_START)


async def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    file, deadline = profile / "DevToolsActivePort", time.monotonic() + _START
    while time.monotonic() < deadline:
        assert process.poll() is None, f"chromium ended with {process.returncode}"
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise TimeoutError("chromium did not start")
