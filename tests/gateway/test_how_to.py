"""The programs in the README, the tutorial and the how-to pages that need a server run as they stand."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from litestar import MediaType, Response, get

from headrace.inbox import InboxSettings
from headrace.inbox.sqlite import SqliteInbox
from headrace.model.events import Publication
from headrace.runtime.clock import SystemClock
from tests.gateway.browser import Page, needs_chromium, open_browser
from tests.gateway.running_gateway import RunningGateway, run_gateway

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to" / "write-a-client.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "browser-client.md"
BODY = b'"event_id":"e","data":{"side":"buy","mint":"M","sol":"1.5"},"chain":{}'
EVENT = Publication.on("trades:pump", "event", BODY)


def programs(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


async def test_the_python_program() -> None:
    async with run_gateway() as running:
        text = programs(HOW_TO, "python")[0].replace(":8080", f":{running.port}")
        words = (sys.executable, "-u", "-c", text)
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            await running.listened_to("trades:pump")
            await running.bus.publish([EVENT])
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"buy M 1.5\n"
        finally:
            process.kill()
            await process.communicate()


async def test_the_programs_that_notify_and_that_are_notified() -> None:
    send, listen = programs(HOW_TO.with_name("notify-users.md"), "python")
    inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings())
    async with run_gateway(inbox=inbox) as running:
        sending, listening = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-u", "-c", text.replace(":8080", f":{running.port}"), stdout=asyncio.subprocess.PIPE
            )
            for text in (send, listen)
        ]
        assert listening.stdout is not None
        try:
            async with asyncio.timeout(30):
                assert await sending.wait() == 0
                assert await listening.stdout.readline() == b"Order filled\n"
                while await inbox.after("42", 0, 1, unacknowledged=True):  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0.01)
        finally:
            listening.kill()
            await listening.communicate()
    await inbox.close()


@asynccontextmanager
async def opened(text: str) -> AsyncIterator[tuple[RunningGateway, Page]]:
    """A page with this program, and the server that it talks to; what it logs is in `heard`."""
    heard = (
        "<link rel='icon' href='data:,'>"
        "<script>window.heard = []; console.log = (...words) => heard.push(words.join(' '));</script>"
    )
    policy = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'; connect-src 'self'"}
    port = 0

    @get("/try", sync_to_thread=False)
    def page() -> Response[str]:
        content = heard + text.replace(":8080", f":{port}")
        return Response(content, media_type=MediaType.HTML, headers=policy)

    async with run_gateway(handlers=(page,)) as running, open_browser() as browser:
        port = running.port
        await running.bus.publish([EVENT])
        await browser.open(f"http://127.0.0.1:{port}/try")
        yield running, browser
        assert browser.complaints == []


@needs_chromium
async def test_the_browser_program() -> None:
    async with opened(programs(HOW_TO, "html")[0]) as (running, browser):
        await running.listened_to("trades:pump")
        await running.bus.publish([EVENT])
        await browser.until("heard.includes('event trades:pump 2')")


@needs_chromium
async def test_the_page_of_the_readme() -> None:
    async with opened(programs(ROOT / "README.md", "html")[0]) as (running, browser):
        await running.listened_to("trades:pump")
        await running.bus.publish([EVENT])
        await browser.until("document.querySelector('#trades li')?.textContent === 'buy M for 1.5 SOL'")


@needs_chromium
async def test_the_pages_of_the_tutorial() -> None:
    first, second = programs(TUTORIAL, "html")
    async with opened(first) as (running, browser):
        await running.listened_to("trades:pump")
        await running.bus.publish([EVENT])
        await browser.until("document.querySelector('#trades li')?.textContent === 'buy M for 1.5 SOL'")
        await running.bus.renew()
        await running.bus.publish(
            [Publication.on("trades:pump", "promote", b'"data":{"slot":"7","commitment":"confirmed"}')]
        )
        await browser.until("document.querySelectorAll('#trades li').length === 0")
    async with opened(second) as (running, browser):
        await running.listened_to("trades:pump")
        await running.bus.publish([EVENT])
        await browser.until("heard.join() === '1 trades before 1,event 2'")
        await running.clients(0)
