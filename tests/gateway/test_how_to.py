"""The programs in the how-to pages that need a server run as they stand there."""

import asyncio
import re
import sys
from pathlib import Path

from litestar import MediaType, Response, get

from headrace.model.events import Publication
from headrace.runtime.clock import SystemClock
from headrace.store.inbox import InboxSettings
from headrace.store.sqlite_inbox import SqliteInbox
from tests.gateway.browser import needs_chromium, open_browser
from tests.gateway.house import House, open_house

FOLDER = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = (FOLDER / "write-a-client.md").read_text()
EVENT = Publication("trades:pump", "event", b'"event_id":"e","data":{"side":"buy","mint":"M","sol":"1.5"},"chain":{}')


def program(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def listened_to(house: House) -> None:
    """Wait until a client has the topic."""
    async with asyncio.timeout(15):
        while "trades:pump" not in house.gateway.hub.topics():  # noqa: ASYNC110  (the hub tells nobody)
            await asyncio.sleep(0.005)


async def test_the_python_program() -> None:
    async with open_house() as house:
        text = program("python").replace(":8080", f":{house.port}")
        words = (sys.executable, "-u", "-c", text)
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            await listened_to(house)
            await house.bus.publish([EVENT])
            async with asyncio.timeout(15):
                assert await process.stdout.readline() == b"buy M 1.5\n"
        finally:
            process.kill()
            await process.communicate()


async def test_the_programs_that_notify_and_that_are_notified() -> None:
    send, listen = re.findall(r"^```python\n(.*?)^```", (FOLDER / "notify-users.md").read_text(), re.M | re.S)
    inbox = await SqliteInbox.open(":memory:", SystemClock(), InboxSettings())
    async with open_house(inbox=inbox) as house:
        sending, listening = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-u", "-c", text.replace(":8080", f":{house.port}"), stdout=asyncio.subprocess.PIPE
            )
            for text in (send, listen)
        ]
        assert listening.stdout is not None
        try:
            async with asyncio.timeout(15):
                assert await sending.wait() == 0
                assert await listening.stdout.readline() == b"Order filled\n"
                while await inbox.after("42", 0, 1, unacknowledged=True):  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0.01)
        finally:
            listening.kill()
            await listening.communicate()
    await inbox.close()


@needs_chromium
async def test_the_browser_program() -> None:
    policy = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'; connect-src 'self'"}
    heard = "<script>window.heard = []; console.log = (...words) => heard.push(words.join(' '));</script>"

    @get("/try", sync_to_thread=False)
    def page() -> Response[str]:
        return Response(heard + program("html"), media_type=MediaType.HTML, headers=policy)

    async with open_house(handlers=(page,)) as house, open_browser() as browser:
        await house.bus.publish([EVENT])
        await browser.open(f"http://127.0.0.1:{house.port}/try")
        await browser.until("heard.includes('earlier trades:pump 1 event')")
        await listened_to(house)
        await house.bus.publish([EVENT])
        await browser.until("heard.includes('live trades:pump 2 event')")
