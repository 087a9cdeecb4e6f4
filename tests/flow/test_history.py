"""Test the history over HTTP: its answers are what clients received, and questions are checked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.adapters import Context
from headrace.config import load
from headrace.decoders.registry import Programs
from headrace.history.candles import INTERVALS_S
from headrace.ingest.pipeline import Pipeline
from headrace.model.facts import Dead, Gap, GapDeclared, SlotChanged
from headrace.model.keys import WSOL_MINT
from headrace.model.updates import AnyUpdate, RewindUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, Event
from headrace.service.server import Service
from headrace.service.settings import SECTIONS
from headrace.sources import Source
from headrace.sources.recording import Recording
from tests.flow.desk import Desk, desk
from tests.history_facts import key, signature, token, trade
from tests.orders.store.servers import empty_database

DEMO = Path(str(resources.files("headrace.data") / "demo.hrec"))
PATIENCE_S = 60.0
MINUTE_S = 1_790_000_040


async def until(client: httpx.AsyncClient, path: str, done: Callable[[Any], bool]) -> Any:
    """Ask until the answer is as it is to be."""
    async with asyncio.timeout(PATIENCE_S):
        while not done(body := (await client.get(path)).json()):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.02)
    return body


async def every(client: httpx.AsyncClient, path: str) -> list[Any]:
    """All items, page after page."""
    page = (await client.get(path)).json()
    found = page["items"]
    while page["next"]:
        page = (await client.get(f"{path}{'&' if '?' in path else '?'}cursor={page['next']}")).json()
        found += page["items"]
    return list(found)


@asynccontextmanager
async def playing() -> AsyncIterator[httpx.AsyncClient]:
    """A server that has played the demo's recording once."""

    async def recording(context: Context) -> Source:
        return Recording(DEMO, context.clock, speed=None)

    env = {"SERVER_PORT": "0", "ORDERS_ENABLED": "false"}
    service = await asyncio.to_thread(
        lambda: Service(load(SECTIONS, env=env, dotenv=None, toml=None), source=recording, play=True, orders=False)
    )
    stop = asyncio.Event()
    async with Supervisor(SystemClock()) as tasks:
        serving = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        assert service.gateway is not None
        url = f"http://127.0.0.1:{service.gateway.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
            yield client
        stop.set()
        await serving


async def published() -> dict[str, Any]:
    """The trades that clients receive of the demo's recording and that are not taken back, by id."""
    outlet = Channel[AnyUpdate](100_000, "block", name="test")
    await Recording(DEMO, ManualClock(), speed=None).run(outlet)
    outlet.close()
    pipeline = Pipeline(await asyncio.to_thread(Programs.load), ManualClock(), Metrics())
    found: dict[str, Any] = {}
    for update in await outlet.get_batch(100_000):
        assert not isinstance(update, RewindUpdate)
        for publication in pipeline.apply(update):
            if publication.topic.startswith("trades:"):
                body = json.loads(b"{%b}" % publication.body)
                if publication.kind == "event":
                    found[body["event_id"]] = body
                elif publication.kind == "retract":
                    for event_id in body["data"]["event_ids"]:
                        found.pop(event_id, None)
    return found


async def test_the_history_is_what_clients_received() -> None:
    expected = await published()
    assert len(expected) > 40
    async with playing() as client:
        await until(client, "/api/slots", lambda page: page["last"] is not None)
        async with asyncio.timeout(PATIENCE_S):
            while len(items := await every(client, "/api/trades?limit=10")) < len(expected):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert {item["event_id"] for item in items} == expected.keys()
        for item in items:
            data = expected[item["event_id"]]["data"]
            for name in ("side", "mint", "quote_mint", "user", "base_amount", "quote_amount", "pool", "program"):
                assert item[name] == data[name], name
        mints = {(item["mint"], item["quote_mint"]) for item in items if item["mint"]}
        for mint, quote in mints:
            of_mint = [item for item in items if (item["mint"], item["quote_mint"]) == (mint, quote)]
            for interval in ("1s", "1m", "1d"):
                path = f"/api/candles/{mint}?quote={quote}&interval={interval}&from=0&limit=7"
                candles = await every(client, path)
                assert sum(int(candle["quote_amount"]) for candle in candles) == sum(
                    int(item["quote_amount"]) for item in of_mint if int(item["base_amount"])
                )
        tokens = await every(client, "/api/tokens")
        for item in tokens:
            assert (await client.get(f"/api/tokens/{item['mint']}")).json()["mint"] == item["mint"]


@asynccontextmanager
async def told(folder: Path, **settings: str) -> AsyncIterator[Desk]:
    """A server whose history has two minutes of a mint, a token, a dead slot and a gap."""
    async with desk(folder, **settings) as client:
        client.service.pipeline.consumers.deliver(
            [
                SlotChanged(7, "processed", 6, "s"),
                *[trade(7 + n, f"{n}", time_s=MINUTE_S + 30 * n, quote=1_000 * (n + 1)) for n in range(4)],
                token(8, "t", mint="M"),
                SlotChanged(10, "confirmed", 9, "s"),
                SlotChanged(11, "dead", None, "s"),
                Dead(11, "fork"),
                GapDeclared(Gap("g", 8, 9, "unrecoverable", "lost"), "logs:P"),
            ]
        )
        await until(client.http, "/api/gaps", lambda page: page.get("items") != [])
        yield client


async def test_a_server_keeps_its_history_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    async with empty_database(postgres_url) as place:
        async with told(tmp_path, DATABASE_URL=place) as client:
            trades = await every(client.http, f"/api/trades?mint={key('M')}&limit=3")
            assert [item["signature"] for item in trades] == [signature(f"{n}") for n in (3, 2, 1, 0)]
            assert (await client.http.get(f"/api/candles/{key('M')}?interval=1h")).json()["items"][0]["trades"] == 4
        async with desk(tmp_path, DATABASE_URL=place) as client:
            assert await every(client.http, f"/api/trades?mint={key('M')}") == trades


async def test_trades_tokens_gaps_slots_and_candles_are_answered(tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        http = client.http
        trades = await every(http, f"/api/trades?mint={key('M')}&limit=1")
        assert [item["signature"] for item in trades] == [signature(f"{n}") for n in (3, 2, 1, 0)]
        assert [item["commitment"] for item in trades] == ["confirmed", *["processed"] * 3]
        assert (trades[0]["slot"], trades[0]["quote_amount"], trades[0]["time"]) == ("10", "4000", MINUTE_S + 90)
        assert len(await every(http, f"/api/trades?user={key('alice')}&from={MINUTE_S + 30}&to={MINUTE_S + 90}")) == 2
        candles = (await http.get(f"/api/candles/{key('M')}?interval=1m&from={MINUTE_S}")).json()
        assert candles["items"] == [
            {
                "time": MINUTE_S + 60 * n,
                "open": low,
                "high": high,
                "low": low,
                "close": high,
                "base_amount": "4000",
                "quote_amount": amount,
                "trades": 2,
            }
            for n, (low, high, amount) in enumerate([("0.0005", "0.001", "3000"), ("0.0015", "0.002", "7000")])
        ]
        assert candles["quote_mint"] == WSOL_MINT
        assert (await http.get(f"/api/tokens/{key('M')}")).json()["symbol"] == "M"
        assert (await http.get(f"/api/tokens/{key('N')}")).status_code == 404
        slots = (await http.get("/api/slots")).json()
        assert [(item["slot"], item["status"], item["reason"]) for item in slots["items"]] == [
            ("11", "dead", "fork"),
            ("10", "confirmed", None),
            ("7", "processed", None),
        ]
        assert (slots["first"], slots["last"]) == ("7", "11")
        assert (await http.get("/api/gaps?from=9&to=9")).json()["items"][0]["gap_id"] == "g"
        assert (await http.get("/api/gaps?from=10")).json()["items"] == []
        ready = (await http.get("/health/ready")).json()["components"]["history"]
        assert (ready["ready"], ready["required"]) == (True, False)


async def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        mint, other = key("M"), key("N")
        cursor = (await client.http.get(f"/api/trades?mint={mint}&limit=1")).json()["next"]
        wrong = {
            f"/api/trades?mint={other}&cursor={cursor}": "cursor",
            f"/api/trades?mint={mint}&from=1&cursor={cursor}": "cursor",
            f"/api/slots?cursor={cursor}": "cursor",
            f"/api/trades?mint={mint}&cursor=zz-{cursor.partition('-')[2]}": "cursor",
            "/api/trades?from=2&to=1": "from",
            "/api/gaps?from=2&to=1": "from",
            "/api/trades?mint=nonsense": "mint",
            "/api/tokens/nonsense": "mint",
            f"/api/candles/{mint}?interval=7m": "interval",
            f"/api/candles/{mint}?from=-1": "from",
            "/api/trades?limit=1001": "limit",
        }
        for path, name in wrong.items():
            answer = await client.http.get(path)
            assert (answer.status_code, answer.json()["errors"][0]["name"]) == (400, name), path
        assert (await client.http.get(f"/api/trades?mint={mint}&limit=2&cursor={cursor}")).status_code == 200


async def test_a_client_that_has_the_answer_gets_304(tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        first = await client.http.get("/api/trades")
        known = {"If-None-Match": first.headers["etag"]}
        again = await client.http.get("/api/trades", headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert (await client.http.get("/api/trades?limit=1", headers=known)).status_code == 200


@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
async def test_live_candles_are_those_that_are_stored(tmp_path: Path, interval: str) -> None:
    topic = f"candles:{key('M')}:{WSOL_MINT}:{interval}"
    live: dict[int, Any] = {}
    async with told(tmp_path) as client, Client(f"ws://127.0.0.1:{client.port}/ws") as listener:
        subscription = await listener.subscribe(topic).started()
        deliver = client.service.pipeline.consumers.deliver
        deliver([trade(20, "k", time_s=MINUTE_S + 95, quote=9_000), trade(20, "l", time_s=MINUTE_S + 200)])
        deliver([trade(21, "m", time_s=MINUTE_S + 201, quote=500_000)])

        async def stored() -> list[Any]:
            return await every(client.http, f"/api/candles/{key('M')}?interval={interval}&from=0")

        async with asyncio.timeout(PATIENCE_S):
            while sum(item["trades"] for item in await stored()) < 7:  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.02)
            deliver([Dead(21, "fork")])
            while sum(item["trades"] for item in await stored()) > 6:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            changed = {item["time"] for item in await stored() if item["time"] + INTERVALS_S[interval] > MINUTE_S + 95}
            expected = {item["time"]: item for item in await stored() if item["time"] in changed}
            async for event in subscription:
                assert isinstance(event, Event)
                data = dict(event.data)
                assert [data.pop(name) for name in ("type", "mint", "quote_mint", "interval")] == [
                    "Candle", key("M"), WSOL_MINT, interval,
                ]  # fmt: skip
                if data["trades"]:
                    live[data["time"]] = data
                else:
                    live.pop(data["time"], None)
                if expected.items() <= live.items():
                    break
    assert live == expected


async def test_a_server_without_a_history_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, HISTORY_ENABLED="false") as client:
        answer = await client.http.get("/api/trades")
        assert (answer.status_code, answer.json()["detail"]) == (501, "this server keeps no history")
        assert "history" not in (await client.http.get("/health/ready")).json()["components"]
    assert not await asyncio.to_thread(lambda: [*tmp_path.glob("history*")])


async def test_a_history_that_cant_be_opened_is_opened_later(tmp_path: Path) -> None:
    async with desk(tmp_path, HISTORY_FILE=str(tmp_path / "later" / "h.db")) as client:
        ready = (await client.http.get("/health/ready")).json()["components"]["history"]
        assert (ready["ready"], ready["required"]) == (False, False)
        assert (await client.http.get("/api/trades")).status_code == 503
        client.service.pipeline.consumers.deliver([trade(7, "a")])
        await asyncio.to_thread((tmp_path / "later").mkdir)
        page = await until(client.http, "/api/trades", lambda page: bool(page.get("items")))
        assert [item["slot"] for item in page["items"]] == ["7"]


async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    async with told(tmp_path):
        pass
    async with desk(tmp_path) as client:
        assert len((await client.http.get("/api/trades")).json()["items"]) == 4
        client.service.pipeline.consumers.deliver([trade(90, "z")])
        page = await until(client.http, "/api/gaps?feed=history", lambda page: page["items"] != [])
        (gap,) = page["items"]
        assert (gap["from_slot"], gap["to_slot"], gap["reason"]) == ("11", "90", "history_not_running")
