"""Both clients against a real gateway, where a scripted server could only pretend: filters, state, letters, tokens."""

import asyncio
import time

import pytest
from msgspec import structs

from headrace.inbox import InboxSettings
from headrace.inbox.sqlite import SqliteInbox
from headrace.model.events import Label, Publication
from headrace.runtime.clock import SystemClock
from headrace.testing.proxy import TcpProxy
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.gateway.test_users import send
from tests.sdk.clients import Maker, Wanted, node, python
from tests.sdk.scripted import TOPIC
from tests.sdk.test_conformance import counted, needs_node, url_of

ACCOUNTS = "accounts:pump"

pytestmark = pytest.mark.parametrize("open_client", [python, pytest.param(node, marks=needs_node)])


def sols(*amounts: str) -> list[dict[str, str]]:
    return [{"sol": sol} for sol in amounts]


async def test_a_filter_lets_only_its_events_pass(open_client: Maker) -> None:
    """Also over a cut, before which nothing that passes came for longer than the history reaches back."""
    options = {"filter": {"key": "sol", "cmp": "gte", "val": "1"}}
    async with (
        run_gateway(history_size=8, ping_s=0.05, pong_s=5) as running,
        TcpProxy("127.0.0.1", running.port) as proxy,
        open_client(Wanted(url_of(proxy), options=options)) as client,
    ):
        await client.go_on()
        await running.tell(TOPIC, *sols("2", "0.5", "30"))
        await client.until(counted(client, 3))
        for last in range(5, 30, 5):
            await running.tell(TOPIC, *sols("0.1", "0.2", "0.3", "0.4", "1"))
            proxy.cut()
            await client.until(counted(client, last + 3))
        assert client.offsets() == [1, 3, 8, 13, 18, 23, 28]
        assert client.values == client.of_type("event")


async def test_conflation_brings_the_newest_event_of_each_key(open_client: Maker) -> None:
    options = {"conflate": {"key": "mint", "every_ms": 50}, "onSlow": "conflate"}
    async with run_gateway() as running, open_client(Wanted(url_of(running), options=options)) as client:
        await client.go_on()
        await running.tell(TOPIC, *({"mint": mint} for mint in "AABA"))
        await client.until(counted(client, 4))
        await running.tell(TOPIC, {"mint": "B"})
        await client.until(counted(client, 5))
        assert client.offsets() == [3, 4, 5]
        assert client.values == client.of_type("event")


async def test_a_filtered_snapshot_has_only_items_that_pass(open_client: Maker) -> None:
    options = {"snapshot": True, "filter": {"key": "pubkey", "cmp": "in", "vals": ["A", "C"]}}
    async with (
        run_gateway() as running,
        TcpProxy("127.0.0.1", running.port) as proxy,
    ):
        await change(running, "A", "B", "C")
        async with open_client(Wanted(url_of(proxy), ACCOUNTS, options)) as client:
            await client.go_on()
            await client.until(lambda: bool(client.values))
            (state,) = client.values
            assert [item["data"]["pubkey"] for item in state["data"]["items"]] == ["A", "C"]
            assert (state["first"], state["last"], state["data"]["complete"]) == (True, True, True)
            await change(running, "B", "C")
            await client.until(counted(client, 5))
            proxy.cut()
            await change(running, "A")
            await client.until(counted(client, 6))
            assert client.offsets() == [5, 6]
            assert len(client.values) == 3


async def test_an_acknowledged_user_message_does_not_come_again(open_client: Maker) -> None:
    inbox = await SqliteInbox.at(":memory:", SystemClock(), InboxSettings())
    async with run_gateway(inbox=inbox) as running:
        await send(running, n=1)
        wanted = Wanted(f"{url_of(running)}?user_id=42", "user:42")
        async with open_client(wanted) as client:
            await client.go_on()
            await send(running, n=2)
            await client.until(counted(client, 2))
            assert [event["data"]["n"] for event in client.of_type("event")] == [1, 2]
            async with asyncio.timeout(30):
                while (box := await inbox.box("42")) is None or box.waiting:
                    await client.look()
    await inbox.close()


async def test_tokens(open_client: Maker) -> None:
    now_s = time.time()
    good, bad = (
        token(now_s=now_s, topics=[TOPIC]),
        token(now_s=now_s, key="another-secret-that-is-long-enough-0123456789"),
    )
    async with run_gateway(auth=HS256) as running:
        for more in ({"tokens": [good]}, {"client": {"token": good, "credential": "frame"}}):
            async with open_client(Wanted(url_of(running), **more)) as client:
                await client.go_on()
                await running.publish(TOPIC)
                await client.until(lambda: bool(client.offsets()))
        assert await refusal(open_client, Wanted(url_of(running), tokens=[bad])) == 101
        assert await refusal(open_client, Wanted(url_of(running), "slots", tokens=[good])) == 103


async def refusal(open_client: Maker, wanted: Wanted) -> int:
    async with open_client(wanted) as client:
        await client.until(lambda: bool(client.of("refused")))
        return int(client.of("refused")[0])


async def change(running: RunningGateway, *pubkeys: str) -> None:
    """Accounts change."""
    for n, key in enumerate(pubkeys):
        body = b'"event_id":"%d","data":{"pubkey":"%b"}' % (n, key.encode())
        await running.bus.publish([Publication.on(ACCOUNTS, "event", body, Label(key, str(n), None, certain=False))])


@pytest.mark.parametrize("credential", ["subprotocol", "frame"])
async def test_a_token_that_is_not_yet_valid(open_client: Maker, credential: str) -> None:
    """The client comes back with the same token, and is let in when its time has come."""
    settings = structs.replace(HS256, leeway_s=0, connect_s=0.3)
    async with run_gateway(auth=settings) as running:
        now_s = time.time()
        early = token(now_s=now_s, nbf=now_s + 1.5)
        wanted = Wanted(url_of(running), client={"credential": credential}, tokens=[early])
        async with open_client(wanted) as client:
            await client.go_on()
            await client.until(lambda: bool(running.gateway.admission.users))
            await running.publish(TOPIC)
            await client.until(counted(client, 1))
        assert running.metric("gateway_credentials_total", kind="token", outcome="not_yet_valid") >= 1
