"""Topics `quotes:…`: a first quote, and another when the state of the pools has changed, while somebody listens."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

from headrace.gateway.routes.order_shapes import OfferView
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.solana.bank import Bank, Held, shared_bank
from tests.contracts.banks import bank_file
from tests.flow.desk import Desk, ask, desk
from tests.flow.test_stream_quotes import AMOUNT, EXPECTED, SET, running, vault_with

PATIENCE_S: Final = 30.0
TOPIC: Final = f"quotes:{WSOL_MINT}:{USDC_MINT}:{AMOUNT}"


async def next_event(socket: ClientConnection, topic: str = TOPIC) -> dict[str, Any]:
    """Return the next event on the topic."""
    async with asyncio.timeout(PATIENCE_S):
        async for text in socket:
            frame: dict[str, Any] = json.loads(text)
            if frame["type"] == "event" and frame["topic"] == topic:
                return frame
    raise AssertionError("the connection ended")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  (the service reports nothing)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def on_bank(folder: Path, **settings: str) -> AsyncIterator[tuple[Desk, Bank]]:
    path = await asyncio.to_thread(partial(bank_file, folder, needs_programs=False))
    chosen = {"BANK_FILE": str(path), "ORDER_CHAIN": "local", "ORDER_VENUES": "pools", "QUOTE_TOPIC_MS": "5"}
    async with desk(folder, **chosen, **settings) as client:
        yield client, await asyncio.to_thread(shared_bank, path)


def put_usdc(bank: Bank, amount: int) -> None:
    """Put so much USDC into the pool's vault."""
    key = SET.accounts[SET.key].fields["token_pc"]
    held = bank.account(key)
    assert held is not None
    data = held.data[:64] + amount.to_bytes(8, "little") + held.data[72:]
    bank.put(key, Held(held.owner, data, held.lamports))


def usdc(bank: Bank) -> int:
    held = bank.account(SET.accounts[SET.key].fields["token_pc"])
    assert held is not None
    return int.from_bytes(held.data[64:72], "little")


def topics_of(client: Desk) -> float:
    return client.service.metrics.registry.get_sample_value("headrace_quote_topics") or 0.0


async def test_a_changed_account_on_the_stream_makes_a_quote_and_a_fork_makes_the_one_before(tmp_path: Path) -> None:
    async with running(tmp_path, topic_ms=5) as service, connect(service.url) as socket:
        assert (await ask(socket, "subscribe", {"topic": TOPIC}))["type"] == "subscribed"
        first = await next_event(socket)
        assert (first["data"]["type"], first["data"]["amountOut"]) == ("Quote", str(EXPECTED)), first
        ledger, feed = service.node.ledger, service.service.stream
        vault, changed = vault_with(2)
        await service.until(lambda: bool(feed.covers(vault)))
        before = service.node.advance_slot()
        dead = service.node.advance_slot()
        original = ledger.accounts[vault]
        service.node.emit_account(vault, changed.owner, changed.data)
        service.node.advance_slot()
        second = await next_event(socket)
        assert int(second["data"]["amountOut"]) > EXPECTED
        assert int(second["data"]["slot"]) >= dead
        assert (second["offset"], second["event_id"]) == ("2", first["event_id"])

        ledger.accounts[vault] = original
        service.node.advance_slot(parent=before)
        coming = asyncio.create_task(next_event(socket))
        await service.until(coming.done)
        third = await coming
        assert (third["data"]["amountOut"], third["offset"]) == (str(EXPECTED), "3")


async def test_a_quote_on_a_bank_has_the_answer_of_http_and_many_changes_make_one_message(tmp_path: Path) -> None:
    async with on_bank(tmp_path) as (client, bank), client.connect() as socket:
        await ask(socket, "subscribe", {"topic": TOPIC})
        first = (await next_event(socket))["data"]
        params: dict[str, str] = {"inputMint": WSOL_MINT, "outputMint": USDC_MINT, "amount": str(AMOUNT)}
        assert first == {"type": "Quote", **(await client.http.get("/api/quote", params=params)).json()}
        msgspec.convert({name: value for name, value in first.items() if name != "type"}, OfferView)
        amount = usdc(bank)
        for number in range(20):
            put_usdc(bank, amount + amount * number // 100)
        second = await next_event(socket)
        assert second["offset"] == "2"
        assert second["data"] == {"type": "Quote", **(await client.http.get("/api/quote", params=params)).json()}
        bank.airdrop(USDT_MINT, 1)  # a change of the bank that changes no quote
        other = f"quotes:{WSOL_MINT}:{USDC_MINT}:{AMOUNT + 1}"
        await ask(socket, "subscribe", {"topic": other}, 2)
        await next_event(socket, other)  # by then, the first topic's quote was computed again too
        put_usdc(bank, amount)
        third = await next_event(socket)
        assert (third["offset"], third["data"]["amountOut"]) == ("3", first["amountOut"])


async def test_no_quote_is_a_message_with_the_reason_and_the_next_quote_follows(tmp_path: Path) -> None:
    async with on_bank(tmp_path) as (client, bank), client.connect() as socket:
        amount = usdc(bank)
        put_usdc(bank, 0)
        await ask(socket, "subscribe", {"topic": TOPIC})
        assert (await next_event(socket))["data"] == {
            "type": "NoQuote",
            "inputMint": WSOL_MINT,
            "outputMint": USDC_MINT,
            "amountIn": str(AMOUNT),
            "reason": "no_quote",
            "leftOut": {"pools": "no answer"},
            "slot": None,
        }
        put_usdc(bank, amount)
        assert (await next_event(socket))["data"]["type"] == "Quote"


async def test_a_second_subscriber_gets_the_newest_quote_by_snapshot(tmp_path: Path) -> None:
    async with on_bank(tmp_path) as (client, _), client.connect() as one, client.connect() as two:
        await ask(one, "subscribe", {"topic": TOPIC})
        quote = await next_event(one)
        await two.send(json.dumps({"type": "subscribe", "id": 1, "data": {"topic": TOPIC, "snapshot": True}}))
        async with asyncio.timeout(PATIENCE_S):
            while (frame := json.loads(await two.recv()))["type"] != "snapshot":
                pass
        assert [item["data"] for item in frame["data"]["items"]] == [quote["data"]]
        assert topics_of(client) == 1


async def test_topics_beyond_the_most_are_refused_until_one_is_free(tmp_path: Path) -> None:
    async with on_bank(tmp_path, QUOTE_TOPICS_MAX="2") as (client, _), client.connect() as socket:
        topics = [f"quotes:{WSOL_MINT}:{USDC_MINT}:{amount}" for amount in (10**9, 2 * 10**9, 3 * 10**9)]
        answers = [await ask(socket, "subscribe", {"topic": topic}) for topic in topics]
        assert [answer["type"] for answer in answers] == ["subscribed", "subscribed", "error"]
        refused = answers[2]["data"]
        assert (refused["code"], refused["temporary"]) == (106, False)
        assert "at most 2 topics of quotes" in refused["message"]
        async with client.connect() as other:
            assert (await ask(other, "subscribe", {"topic": topics[0]}))["type"] == "subscribed", "the topic is there"
        assert topics_of(client) == 2
        await ask(socket, "unsubscribe", {"topic": topics[1]})
        assert (await ask(socket, "subscribe", {"topic": topics[2]}))["type"] == "subscribed"
        await next_event(socket, topics[2])


async def test_nothing_is_computed_for_a_topic_without_subscribers(tmp_path: Path) -> None:
    async with on_bank(tmp_path) as (client, bank):
        async with client.connect() as socket:
            await ask(socket, "subscribe", {"topic": TOPIC})
            await next_event(socket)
        await until(lambda: topics_of(client) == 0)
        put_usdc(bank, usdc(bank) * 2)
        async with client.connect() as socket:
            answer = await ask(socket, "subscribe", {"topic": TOPIC})
            assert answer["data"]["offset"] == "1", "nothing was published meanwhile"
            assert (await next_event(socket))["offset"] == "2", "the first subscriber gets a quote at once"


@pytest.mark.parametrize(
    ("topic", "settings", "code", "message"),
    [
        (TOPIC, {"ORDERS_ENABLED": "false"}, 107, "this server publishes no quotes"),
        (TOPIC, {"QUOTE_TOPICS_MAX": "0"}, 106, "at most 0 topics"),
        (TOPIC, {"ORDER_AMOUNT_MAX": "1000"}, 107, "amount"),
        (f"quotes:{WSOL_MINT}:{USDT_MINT}:{2**64}", {}, 107, "amount"),
        (f"quotes:{WSOL_MINT}:{WSOL_MINT}:1", {}, 102, "unknown topic"),
    ],
)
async def test_a_topic_without_a_possible_quote_is_refused(
    tmp_path: Path, topic: str, settings: dict[str, str], code: int, message: str
) -> None:
    async with desk(tmp_path, **settings) as client, client.connect() as socket:
        refused = await ask(socket, "subscribe", {"topic": topic})
        assert (refused["type"], refused["data"]["code"]) == ("error", code), refused
        assert message in refused["data"]["message"]


async def test_mock_venues_are_asked_again_by_time(tmp_path: Path) -> None:
    async with desk(tmp_path, QUOTE_TOPIC_MS="5") as client, client.connect() as socket:
        await ask(socket, "subscribe", {"topic": TOPIC})
        quotes = [await next_event(socket) for _ in range(2)]
        assert [quote["data"]["type"] for quote in quotes] == ["Quote", "Quote"]
        assert quotes[0]["data"] != quotes[1]["data"]
