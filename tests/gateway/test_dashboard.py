"""The page at `/`: served strictly, and looked at in a real browser with real trades and hostile names."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

import headrace
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.model.events import MessageKind, Publication
from headrace.model.updates import AnyUpdate
from headrace.protocol.codes import CloseCode
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording
from tests.gateway.browser import Page, needs_chromium, open_browser
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import RunningGateway, run_gateway

HOSTILE = "<img src=x onerror=\"document.title='pwned'\"></bdi><script>document.title='pwned'</script>\u202egnp.\x00"
DEMO = Path(headrace.__file__).parent / "data" / "demo.hrec"
BROWSER_EXAMPLE = Path(__file__).parents[2] / "examples" / "browser.html"


@pytest.fixture
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(demo=True) as running:
        yield running


async def play_demo(running: RunningGateway) -> None:
    """The shipped recording, as fast as it goes, through the real pipeline."""
    clock, outlet = SystemClock(), Channel[AnyUpdate](1000, "block", name="ingest")
    pipeline = Pipeline(await asyncio.to_thread(Programs.load), clock, Metrics())
    flow = asyncio.create_task(pipeline.run(outlet, running.bus.writers["ingest"]))
    ending = await Recording(DEMO, clock, speed=None).run(outlet)
    outlet.close()
    await flow
    assert ending.how == "exhausted", ending


async def publish(
    running: RunningGateway, kind: MessageKind, topic: str, data: object, event_id: str = "", slot: int = 7
) -> None:
    chain = {"slot": str(slot), "signature": "5sig" * 16, "ix": [0], "commitment": "processed"}
    body = f'"data":{json.dumps(data)}'
    if kind == "event":
        body = f'"event_id":"{event_id}",{body},"chain":{json.dumps(chain)}'
    await running.bus.publish([Publication.on(topic, kind, body.encode())])


def trade(amount: str = "18446744073709551615") -> dict[str, object]:
    mint, sol = "9VnZJfLDZDoJT5sx3pQYgS4xTJyJbJVxrZe66HH2pump", "So11111111111111111111111111111111111111112"
    return {
        "type": "Trade", "program": "pump", "event": "TradeEvent", "mint": mint, "quote_mint": sol, "side": "buy",
        "user": mint, "base_amount": amount, "quote_amount": "1", "sol": "0.000000001", "pool": None, "fields": {},
    }  # fmt: skip


async def test_the_files_are_served_strictly(running: RunningGateway) -> None:
    types = {
        "/": "text/html",
        "/dashboard.css": "text/css",
        "/dashboard.js": "text/javascript",
        "/client/headrace.js": "text/javascript",
        "/client/subscription.js": "text/javascript",
        "/icon.svg": "image/svg+xml",
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http:
        for path, media_type in types.items():
            answer = await http.get(path)
            policy = answer.headers["content-security-policy"].split("; ")
            assert answer.headers["content-type"].split(";")[0] == media_type
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-cache"
            assert "innerHTML" not in answer.text


@needs_chromium
async def test_real_trades_are_shown(running: RunningGateway) -> None:
    await play_demo(running)
    async with open_browser() as page:
        await page.open(f"http://127.0.0.1:{running.port}/")
        await page.until("document.querySelectorAll('#trades tr.sell, #trades tr.buy').length >= 30")
        await page.until("document.querySelectorAll('#tokens li').length >= 4")
        text = await page.evaluate("document.body.innerText")
        assert "demo: recorded mainnet trades" in text
        for expected in ("connected", "listening on port", "raydium_cpmm", "SOL", "confirmed"):
            assert expected in text, text
        assert await page.evaluate("document.querySelectorAll('#trades tr').length") == 30, "rows are bounded"
        assert await page.evaluate("document.querySelector('#raw li').textContent.startsWith('{\"type\":')")
        assert page.complaints == []


@needs_chromium
async def test_a_hostile_name_is_text(running: RunningGateway) -> None:
    mint = "9VnZJfLDZDoJT5sx3pQYgS4xTJyJbJVxrZe66HH2pump"
    data = {"type": "TokenCreated", "mint": mint, "name": HOSTILE, "symbol": HOSTILE, "creator": mint}
    await publish(running, "event", "token_updates", data, "e1")
    async with open_browser() as page:
        await page.open(f"http://127.0.0.1:{running.port}/")
        await page.until("document.querySelectorAll('#tokens li').length === 1")
        assert await page.evaluate("document.querySelector('#tokens bdi').textContent") == HOSTILE
        assert await page.evaluate("document.querySelectorAll('#tokens img, #tokens script').length") == 0
        assert await page.evaluate("document.title") == "Headrace"
        assert page.complaints == []


@needs_chromium
async def test_verdicts_gaps_and_a_lost_connection(running: RunningGateway) -> None:
    state = partial("document.querySelector('#trades tr:nth-last-child({}) .mark')?.textContent === '{}'".format)
    async with open_browser() as page:
        await page.open(f"http://127.0.0.1:{running.port}/")
        await page.until("document.querySelector('#connection').textContent === 'connected'")
        await running.listened_to("trades:pump")
        await publish(running, "event", "trades:pump", trade(), "e1", slot=7)
        await publish(running, "event", "trades:pump", trade(), "e2", slot=8)
        await page.until(state(2, "processed"))
        assert "18,446,744,073,709,551,615" in await page.evaluate("document.querySelector('#trades').textContent")
        await publish(running, "promote", "trades:pump", {"slot": "7", "commitment": "confirmed"})
        await publish(running, "retract", "trades:pump", {"event_ids": ["e2"], "reason": "fork"})
        await page.until(state(1, "confirmed"))
        await page.until(state(2, "retracted"))
        await gap(running, "open")
        await page.until("document.querySelector('.notice')?.textContent.includes('being refilled')")
        await gap(running, "unrecoverable")
        await page.until("document.querySelector('.notice').textContent.includes('can\\'t be had')")
        assert await page.evaluate("document.querySelectorAll('.notice').length") == 1
        for client in list(running.gateway.hub.clients):
            client.cut_off(CloseCode.SHUTDOWN)
        await publish(running, "event", "trades:pump", trade("42"), "e3", slot=9)
        await page.until("document.querySelector('#trades tr:first-child .amount')?.textContent === '42'")
        await page.until("document.querySelector('#trades tr:first-child .age').textContent === 'caught up'")
        assert await page.evaluate("document.querySelector('#trade-count').textContent") == "3"


@needs_chromium
async def test_a_new_epoch_is_reported_once(running: RunningGateway) -> None:
    async with open_browser() as page:
        await page.open(f"http://127.0.0.1:{running.port}/")
        for topic in ("trades:pump", "slots"):
            await running.listened_to(topic)
            await publish(running, "event", topic, trade(), f"{topic}:1")
        await page.until("document.querySelectorAll('#trades tr').length === 2")
        await running.bus.renew()
        for topic in ("trades:pump", "slots"):
            await publish(running, "event", topic, trade("42"), f"{topic}:2")
        await page.until("document.querySelectorAll('#trades tr').length === 5")
        assert await page.evaluate(
            "[...document.querySelectorAll('.notice')].map((row) => row.textContent).join()"
        ) == ("A new log begins here.")


@needs_chromium
async def test_any_topic_is_shown_raw(running: RunningGateway) -> None:
    await publish(running, "event", "events:pump", {"type": "Event", "program": "pump"}, "e1")
    async with open_browser() as page:
        await page.open(f"http://127.0.0.1:{running.port}/")
        await page.until("[...document.querySelector('#known').options].some(({ text }) => text === 'events:pump')")
        await follow(page, "events:pump")
        await page.until("document.querySelectorAll('#raw li').length === 1")
        await running.listened_to("events:pump")
        await follow(page, "nonsense")
        await page.until("document.querySelector('#raw-state').textContent === 'nonsense: unknown topic (102)'")
        assert await page.evaluate("document.querySelectorAll('#raw li').length") == 0


@needs_chromium
async def test_the_example_page_shows_trades(running: RunningGateway, tmp_path: Path) -> None:
    example = tmp_path / "browser.html"
    example.write_text(BROWSER_EXAMPLE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{running.port}"))
    async with open_browser() as page:
        await page.open(example.as_uri())
        await running.listened_to("trades:pump")
        await publish(running, "event", "trades:pump", trade() | {"mint": "<b>x</b>"}, "e1")
        await page.until("document.querySelector('#trades li')?.textContent === 'buy <b>x</b> for 0.000000001 SOL'")
        for client in list(running.gateway.hub.clients):
            client.cut_off(CloseCode.SHUTDOWN)
        await publish(running, "retract", "trades:pump", {"event_ids": ["e1"], "reason": "fork"})
        await publish(running, "event", "trades:pump", trade(), "e2")
        await page.until("document.querySelector('#trades li')?.dataset.id === 'e2'")
        assert await page.evaluate("document.querySelectorAll('#trades li').length") == 1
        assert page.complaints == []


async def follow(page: Page, topic: str) -> None:
    await page.evaluate(f"document.querySelector('#topic').value = '{topic}'")
    await page.evaluate("document.querySelector('#chooser').requestSubmit()")


async def gap(running: RunningGateway, state: str) -> None:
    data = {"gap_id": "g1", "from_slot": "1", "to_slot": "9", "state": state, "reason": "test"}
    for topic in ("trades:pump", "token_updates"):
        await publish(running, "gap", topic, data)


@needs_chromium
async def test_with_a_token_behind_the_address_it_comes_in() -> None:
    async with run_gateway(auth=HS256) as running, open_browser() as page:
        url = f"http://127.0.0.1:{running.port}/"
        await page.open(url)
        await page.until("document.body.innerText.includes('this server wants a token')")
        await page.open(f"{url}?bad#token=x.y.z")
        await page.until("document.body.innerText.includes('this server refuses the token')")
        await page.open(f"{url}?again#token={token(now_s=running.gateway.keeper.clock.wall_ns() / 1e9)}")
        await page.until("document.body.innerText.includes('connected')")
        assert await page.evaluate("location.href") == url
        await page.until(f"document.body.innerText.includes('{headrace.__version__}')")
