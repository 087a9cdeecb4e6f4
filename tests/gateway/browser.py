"""A headless Chromium, driven over its DevTools protocol: enough to open a page and ask what is in it."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page is not looked at")

_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. What the page itself complains of (exceptions, broken CSP) is kept in `complaints`."""

    def __init__(self, socket: ClientConnection, session_id: str = "") -> None:
        self._socket, self._session_id = socket, session_id
        self._ids = itertools.count(1)
        self._loaded = False
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> Any:
        """One DevTools command and its result."""
        call_id = next(self._ids)
        call = {"id": call_id, "method": method, "params": params}
        await self._socket.send(json.dumps(call | ({"sessionId": self._session_id} if self._session_id else {})))
        async with asyncio.timeout(90):
            while True:
                heard = await self._hear()
                if heard.get("id") == call_id:
                    assert "error" not in heard, heard
                    return heard["result"]

    async def _hear(self) -> Any:
        heard = json.loads(await self._socket.recv())
        if heard.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(heard["params"]))
        elif heard.get("method") == "Page.loadEventFired":
            self._loaded = True
        return heard

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session_id = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self._loaded = False
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(60):
            while not self._loaded:
                await self._hear()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise's, when it is kept."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait in the page, frame by frame, for a condition."""
        look = f"() => ({condition}) ? done(true) : Date.now() > end ? done(false) : requestAnimationFrame(look)"
        kept = await self.evaluate(f"new Promise(done => {{ const end = Date.now() + 60000, look = {look}; look(); }})")
        assert kept, (condition, await self.evaluate("document.body.innerText"), self.complaints)


@asynccontextmanager
async def open_browser() -> AsyncIterator[Page]:
    """A tab of a fresh browser, which is gone afterwards."""
    assert CHROMIUM is not None
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, *_SWITCHES, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        drain: asyncio.Task[bytes] | None = None
        try:
            async with asyncio.timeout(60):
                while b"DevTools listening on " not in (line := await process.stderr.readline()):
                    assert line, "chromium ended before it listened"
            drain = asyncio.create_task(process.stderr.read())
            async with connect(line.rpartition(b" ")[2].strip().decode(), max_size=None) as socket:
                page = Page(socket)
                await page.attach()
                yield page
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            if drain is not None:
                await drain
