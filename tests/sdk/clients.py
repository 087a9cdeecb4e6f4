"""The Python client, and the JavaScript one in Node and in Chromium, as one thing that a scenario can hold."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler

from headrace.model.events import Position
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, Event, NotRecovered, Refused, Snapshot, Value
from tests.gateway.browser import Page, open_browser
from tests.gateway.running_gateway import run_gateway

CLIENT_JS = Path(__file__).parents[2] / "clients" / "js"
FOLLOW_JS = Path(__file__).with_name("follow.js")
NODE = shutil.which("node") or ""
PATIENCE_S = 30.0

Told = dict[str, Any]
T = TypeVar("T")


class Wanted(msgspec.Struct, frozen=True):
    """What a scenario asks of a client. Each call for a token gives the next of `tokens`, at last the same again; None:
    whoever gives them can't be reached.
    """

    url: str
    topic: str = "trades:pump"
    options: dict[str, Any] = {}
    client: dict[str, Any] = {}
    tokens: list[str | None] | None = None
    history: dict[str, Any] | None = None


class Follower:
    """What one client told so far, in the words of the wire. It reads when `go` is called."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    async def go(self) -> None:
        """Let it read."""
        raise NotImplementedError

    async def look(self) -> None:
        """Let `told` grow."""
        await asyncio.sleep(0.002)

    async def until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await self.look()
        except TimeoutError:
            raise AssertionError(f"waited in vain; the client told {self.told[-5:]}") from None

    def of(self, what: str) -> list[Any]:
        return [told[what] for told in self.told if what in told]

    @property
    def values(self) -> list[Any]:
        return self.of("value")

    def of_type(self, kind: str) -> list[Any]:
        return [value for value in self.values if value["type"] == kind]

    def offsets(self) -> list[int]:
        """Of the events."""
        return [int(event["offset"]) for event in self.of_type("event")]

    async def begun(self) -> None:
        """The server has accepted the subscription."""
        await self.until(lambda: bool(self.of("started")))

    async def go_on(self) -> None:
        """Let it read as soon as it is subscribed."""
        await self.begun()
        await self.go()


class Maker(Protocol):
    """Opens clients of one kind."""

    def __call__(self, wanted: Wanted) -> AbstractAsyncContextManager[Follower]: ...


class _PythonFollower(Follower):
    def __init__(self) -> None:
        super().__init__()
        self.may_read = asyncio.Event()

    async def go(self) -> None:
        self.may_read.set()

    async def run(self, wanted: Wanted) -> None:
        tokens = list(wanted.tokens or [])

        async def token() -> str:
            following = tokens.pop(0) if len(tokens) > 1 else tokens[0]
            if following is None:
                raise ConnectionRefusedError
            return following

        options = dict(wanted.client)
        if tokens:
            options["token"] = token
        backoff = Backoff(0.001, 0.02)
        client = Client(
            wanted.url,
            backoff=backoff,
            on_loss=lambda why, _: self.told.append({"lost": why}),
            on_connect=lambda: self.told.append({"welcomed": True}),
            **options,
        )
        async with client:
            try:
                await self._follow(client, wanted)
            except Refused as refused:
                self.told.append({"refused": refused.code})

    async def _follow(self, client: Client, wanted: Wanted) -> None:
        subscription = client.subscribe(wanted.topic, **_python(wanted.options))
        await subscription.started()
        self.told.append({"started": _position(subscription.position)})
        if wanted.history:
            page = await client.history(wanted.topic, **_python(wanted.history))
            items = [json.loads(item.frame) for item in page.items]
            self.told.append({"history": {"topic": page.topic, "items": items} | (_position(page.top) or {})})
        await self.may_read.wait()
        async for value in subscription:
            place, missed = _position(subscription.position), subscription.catching_up
            self.told.append({"value": on_the_wire(value), "position": place, "catching_up": missed})
            if isinstance(value, Event) and value.ack:
                client.ack(value)
        self.told.append({"ended": True})


@asynccontextmanager
async def python(wanted: Wanted) -> AsyncIterator[Follower]:
    follower = _PythonFollower()
    async with Supervisor(SystemClock()) as tasks:
        running = tasks.start("test", "python", partial(follower.run, wanted))
        yield follower
        running.cancel()


def on_the_wire(value: Value) -> Any:
    """A value as the JavaScript client gives it."""
    if isinstance(value, NotRecovered):
        before, now = _position(value.before), _position(value.now)
        return {"type": "not_recovered", "topic": value.topic, "before": before, "now": now}
    paging = {"first": value.first, "last": value.last} if isinstance(value, Snapshot) else {}
    return json.loads(value.frame) | paging


def _position(position: Position | None) -> dict[str, str] | None:
    return None if position is None else {"epoch": position.epoch, "offset": str(position.offset)}


def _python(options: dict[str, Any]) -> dict[str, Any]:
    named = {"onSlow": "on_slow"}
    return {
        named.get(name, name): Position(value["epoch"], int(value["offset"])) if name in ("recover", "since") else value
        for name, value in options.items()
    }


class _NodeFollower(Follower):
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process

    async def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.told.append(json.loads(line))


async def _whole(work: "asyncio.Future[T]") -> tuple[T, bool]:
    """Wait to the end, however often the waiter is cancelled: (result, whether it was cancelled)."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = True
    return work.result(), cancelled


@asynccontextmanager
async def node(wanted: Wanted) -> AsyncIterator[Follower]:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            NODE,
            "--experimental-websocket",  # Node 20 has a WebSocket, behind this switch; 22 has it without, and takes it
            "--no-warnings",
            str(FOLLOW_JS),
            (CLIENT_JS / "headrace.js").as_uri(),
            msgspec.json.encode(wanted).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=sys.stderr,
            limit=2**24,
        )
    )
    process, cancelled = await _whole(starting)
    if cancelled:
        process.kill()
        await _whole(asyncio.ensure_future(process.wait()))
        raise asyncio.CancelledError
    follower = _NodeFollower(process)
    async with Supervisor(SystemClock()) as tasks:
        tasks.start("test", "node", follower.read)
        try:
            yield follower
        finally:
            if process.returncode is None:
                process.kill()
            await _whole(asyncio.ensure_future(process.wait()))


class _PageFollower(Follower):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    async def go(self) -> None:
        await self.page.evaluate("go()")

    async def look(self) -> None:
        self.told += json.loads(await self.page.evaluate("JSON.stringify(heard.splice(0))"))
        await asyncio.sleep(0.01)


PAGE = """<!doctype html><meta charset="utf-8"><title>Follow</title><link rel="icon" href="data:,">
<script type="module">
import { follow } from "/js/follow.js";
window.heard = [];
window.start = (wanted) => follow("/js/headrace.js", wanted, (what) => heard.push(structuredClone(what)),
                                  () => new Promise((resolve) => (window.go = resolve)));
window.ready = true;
</script>"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Maker]:
    """One browser for many clients, one after the other."""

    scripts = [*CLIENT_JS.glob("*.js"), FOLLOW_JS]

    @get("/follow", sync_to_thread=False)
    def page() -> Response[str]:
        policy = "script-src 'self' 'unsafe-inline'; connect-src *"
        return Response(PAGE, media_type=MediaType.HTML, headers={"Content-Security-Policy": policy})

    async with run_gateway(handlers=(page, *map(served, scripts))) as running, open_browser() as browser:

        @asynccontextmanager
        async def open_page(wanted: Wanted) -> AsyncIterator[Follower]:
            await browser.open(f"http://127.0.0.1:{running.port}/follow")
            await browser.until("window.ready")
            await browser.evaluate(f"void start({msgspec.json.encode(wanted).decode()})")
            yield _PageFollower(browser)
            await browser.open("about:blank")

        yield open_page


def served(path: Path) -> HTTPRouteHandler:
    """A handler for one script."""

    @get(f"/js/{path.name}", sync_to_thread=True)
    def script() -> Response[str]:
        return Response(path.read_text(), media_type="text/javascript")

    return script
