"""Test the history of a server through the SDK: all pages, refusals, and a server that is busy or cut off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.model.errors import ConfigError
from headrace.sdk import Past, Refused
from headrace.sdk.past import PAGE
from tests.flow.desk import desk
from tests.flow.test_history import MINUTE_S, told, until
from tests.history_facts import key, signature, trade


async def all_of(items: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item async for item in items]


async def test_every_query_yields_all_of_its_items(tmp_path: Path) -> None:
    async with told(tmp_path) as client, Past(str(client.http.base_url)) as past:
        more = [trade(100 + n, f"more{n}", time_s=MINUTE_S + 600 + n) for n in range(PAGE + 1)]
        client.service.pipeline.consumers.deliver(more)
        last = f"/api/trades?from={MINUTE_S + 600 + PAGE}"
        await until(client.http, last, lambda page: bool(page.get("items")))
        found = [item["signature"] for item in await all_of(past.trades(mint=key("M"), user=key("alice")))]
        assert found == [*(signature(f"more{n}") for n in range(PAGE, -1, -1)), *map(signature, "3210")]
        some = await all_of(past.trades(program="pump", from_s=MINUTE_S + 30, to_s=MINUTE_S + 90))
        assert [item["slot"] for item in some] == ["9", "8"]
        candles = await all_of(past.candles(key("M"), interval="1d"))
        assert [item["trades"] for item in candles] == [PAGE + 5]
        assert [item["symbol"] for item in await all_of(past.tokens(creator=key("alice")))] == ["M"]
        assert [item["gap_id"] for item in await all_of(past.gaps(to_slot=8))] == ["g"]
        assert [item["slot"] for item in await all_of(past.slots(from_slot=8))] == ["11", "10"]


async def test_a_refusal_is_raised(tmp_path: Path) -> None:
    async with desk(tmp_path, HISTORY_ENABLED="false") as client, Past(str(client.http.base_url)) as past:
        with pytest.raises(Refused, match=r"keeps no history \(501\)"):
            await all_of(past.trades())
        with pytest.raises(Refused, match=r"\(400\)"):
            await all_of(past.trades(mint="no key"))
    with pytest.raises(ConfigError, match="an http:// or https:// URL"):
        Past("ws://127.0.0.1:8080")


async def test_a_page_is_asked_for_again_while_the_server_is_busy_or_cut_off() -> None:
    answers = [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        _ok(b'{"items":[{"n":1}],"next":"aa-1"}'),
        b"",
        _ok(b'{"items":[{"n":2}],"next":null}'),
    ]
    async with scripted(answers) as (url, asked), Past(url, token="t") as past:
        assert await all_of(past.slots()) == [{"n": 1}, {"n": 2}]
    assert [b"cursor=aa-1" in head for head in asked] == [False, False, False, True, True]
    assert all(b"Authorization: Bearer t" in head for head in asked)


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def scripted(answers: list[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next answer and closes it; its address, and the requests it had."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answers[len(asked) - 1])
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
