"""docs/reference/http.md is true, and the programs of docs/how-to/follow-over-http.md run as they stand there."""

import asyncio
import json
import re
import sys
from pathlib import Path

import httpx
import pytest
from litestar import MediaType, Response, get

from headrace.bus import BusSettings
from headrace.model.events import Publication
from headrace.runtime.clock import SystemClock
from tests.gateway.browser import needs_chromium, open_browser
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.gateway.test_how_to import EVENT
from tests.gateway.test_reference import HAPPENINGS, lines_of, matches
from tests.local_bus import LocalBus

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "http.md").read_text()
HOW_TO = (DOCS / "how-to" / "follow-over-http.md").read_text()
BLOCKS = re.findall(r"^```text\n(.*?)^```", REFERENCE, re.MULTILINE | re.DOTALL)
EXCHANGES = [block for block in BLOCKS if "→ GET" in block]


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_the_examples_happen(exchange: str) -> None:
    bus = LocalBus(BusSettings(), SystemClock(), "k3Fq")
    async with (
        run_gateway(bus) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http,
    ):
        answer: httpx.Response | None = None
        for mark, text in lines_of(exchange):
            if mark == "#":
                await bus.publish([Publication.on("trades:pump", kind, body) for kind, body in HAPPENINGS[text]])
            elif mark == "→":
                answer = await http.get(text.removeprefix("GET "))
            else:
                assert answer is not None
                shown = json.loads(text.replace(",…", ',"…":0'))
                assert matches(shown, answer.json()), (shown, answer.text)


async def test_the_stream_is_as_shown() -> None:
    """Field for field, but for the time to wait."""
    (shown,) = [block for block in BLOCKS if block.startswith("retry")]
    bus = LocalBus(BusSettings(), SystemClock(), "k3Fq")
    happened = ["five trades happen", "a trade happens", "a fork takes it back"]
    async with (
        run_gateway(bus) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http,
    ):
        await bus.publish([Publication.on("trades:pump", *what) for what in HAPPENINGS[happened[0]]])
        async with http.stream("GET", "/api/topics/trades:pump/sse") as response:
            for name in happened[1:]:
                await running.listened_to("trades:pump")
                await bus.publish([Publication.on("trades:pump", *what) for what in HAPPENINGS[name]])
            stopping = asyncio.create_task(running.gateway.stop(5))
            real = (await response.aread()).decode()
        await stopping
    shown_lines = re.sub(r"\n {7}", "", shown).strip().split("\n")
    real_lines = real.split("\n")[: len(shown_lines)]
    for shown_line, real_line in zip(shown_lines, real_lines, strict=True):
        name, _, value = shown_line.partition(": ")
        assert real_line.partition(": ")[0] == name
        if name == "data":
            assert matches(json.loads(value.replace(",…", ',"…":0')), json.loads(real_line[6:]))
        elif name != "retry":
            assert real_line == shown_line


async def test_every_route_has_its_line() -> None:
    told = set(re.findall(r"`(?:GET|POST) (/[^`?]*)`", REFERENCE.partition("\nIn the examples")[0]))
    async with run_gateway() as running, httpx.AsyncClient(verify=False) as http:
        document = (await http.get(f"http://127.0.0.1:{running.port}/schema")).json()
    assert told == {*document["paths"], "/schema", "/schema/asyncapi.json"}


def program(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def drop_the_client(running: RunningGateway) -> None:
    (client,) = running.gateway.hub.clients
    client.wire.abort()  # type: ignore[attr-defined]
    await running.clients(0)


async def test_the_python_program() -> None:
    async with run_gateway() as running:
        words = (sys.executable, "-u", "-c", program("python").replace(":8080", f":{running.port}"))
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                await running.listened_to("trades:pump")
                await running.bus.publish([EVENT])
                assert await process.stdout.readline() == b"buy M 1.5\n"
                await drop_the_client(running)
                await running.bus.publish([EVENT, EVENT])
                assert await process.stdout.readline() == b"buy M 1.5\n"
                assert await process.stdout.readline() == b"buy M 1.5\n"
        finally:
            process.kill()
            await process.communicate()


@needs_chromium
async def test_the_browser_program() -> None:
    policy = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'; connect-src 'self'"}
    heard = "<script>window.heard = []; console.log = (...words) => heard.push(words.join(' '));</script>"

    @get("/try", sync_to_thread=False)
    def page() -> Response[str]:
        return Response(heard + program("html"), media_type=MediaType.HTML, headers=policy)

    async with run_gateway(handlers=(page,), history_size=3) as running, open_browser() as browser:
        await browser.open(f"http://127.0.0.1:{running.port}/try")
        await running.listened_to("trades:pump")
        await running.bus.publish([Publication.on("trades:pump", "event", b'"event_id":"e1","data":{"type":"Trade"}')])
        await running.bus.publish(
            [Publication.on("trades:pump", "retract", b'"data":{"event_ids":["e1"],"reason":"fork"}')]
        )
        await browser.until("heard.includes('undo e1')")
        await drop_the_client(running)
        await running.bus.publish([EVENT] * 9)
        await browser.until("heard.includes('moved on too far: start afresh')")
        assert await browser.evaluate("heard[0]") == "event e1 Trade"
