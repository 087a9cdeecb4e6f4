"""`Client` over real sockets: what the scenarios for all clients (test_conformance) do not ask of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import structlog
from websockets.asyncio.server import ServerConnection, serve

from headrace.model.errors import ConfigError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.sdk import Client, Event, Head, Lag, Position, Refused, Subscription
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.sdk.scripted import TOPIC, open_scripted

QUICK_S = 0.001


def url_of(running: RunningGateway, path: str = "/ws") -> str:
    return f"ws://127.0.0.1:{running.port}{path}"


def quick(url: str) -> Client:
    return Client(url, backoff=Backoff(QUICK_S, 20 * QUICK_S))


async def read(subscription: Subscription, count: int) -> list[int]:
    """The offsets of the next events."""
    offsets: list[int] = []
    async with asyncio.timeout(30):
        while len(offsets) < count:
            value = await anext(subscription)
            assert isinstance(value, Event), value
            offsets.append(value.position.offset)
    return offsets


async def test_values_are_typed() -> None:
    async with open_scripted() as server, Client(server.url) as client:
        trades = client.subscribe(TOPIC)
        assert (client.connected, client.head, trades.position) == (False, None, None)
        visit = await server.visit()
        await visit.welcome()
        await visit.accept(0)
        chain = {"slot": "447200011", "signature": "5sig", "ix": [3, 1], "commitment": "processed", "tx_version": 0}
        await visit.events(1, chain=chain)
        event = await anext(trades)
        assert isinstance(event, Event)
        assert event.chain is not None
        assert (event.position, event.data, event.chain.slot, event.chain.ix) == (
            Position("e", 1), {"n": 1}, 447200011, (3, 1),
        )  # fmt: skip
        assert trades.position == Position("e", 1)
        head = {"processed": "447200020", "confirmed": None}
        await visit.say("ping", {"ts": 5, "head": head, "upstream_lag_ms": 180, "tops": {TOPIC: "1"}})
        await visit.heard("pong")
        assert client.head == Head(at_ms=5, processed=447200020, confirmed=None, upstream_lag_ms=180)
        assert client.connected


async def test_many_subscriptions_share_one_connection() -> None:
    async with run_gateway() as running, quick(url_of(running)) as client:
        topics = [f"events:{number}" for number in range(40)]
        subscriptions = [client.subscribe(topic) for topic in topics]  # more than commands a second
        for subscription in subscriptions:
            await subscription.started()
        for topic in topics:
            await running.publish(topic, 2)
        for subscription in subscriptions:
            assert await read(subscription, 2) == [1, 2]
        await running.clients(1)


async def test_a_reader_that_is_stuck_holds_up_no_other() -> None:
    async with run_gateway() as running, Client(url_of(running), queue=4) as client:
        stuck, other = client.subscribe(TOPIC), client.subscribe("slots")
        await stuck.started()
        await other.started()
        await running.publish(TOPIC, 50)
        await running.publish("slots", 1)
        assert await read(other, 1) == [1]
        assert (await client.history("slots")).top.offset == 1
        assert await read(stuck, 50) == list(range(1, 51))


async def test_unread_user_messages_hold_up_no_topic() -> None:
    """What a user is sent can't be left: once it is full, the rest is told as dropped."""
    async with open_scripted() as server, Client(server.url, queue=2) as client:
        letters, trades = client.subscribe("user:42"), client.subscribe(TOPIC)
        visit = await server.visit()
        await visit.welcome()
        await visit.accept(0)
        await visit.events(*range(1, 101), topic="user:42")
        await visit.events(1)
        assert await read(trades, 1) == [1]
        assert await read(letters, 2) == [1, 2]
        lag = await anext(letters)
        assert isinstance(lag, Lag)
        assert (lag.from_offset, lag.to_offset) == (3, 100)


async def test_a_topic_can_be_left_and_followed_again() -> None:
    async with run_gateway() as running, Client(url_of(running)) as client:
        with client.subscribe(TOPIC) as first:
            await first.started()
            with pytest.raises(ValueError, match="already subscribed"):
                client.subscribe(TOPIC)
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        second = await client.subscribe(TOPIC).started()
        await running.publish(TOPIC, 1)
        assert await read(second, 1) == [1]


async def test_history_is_paged_and_refused() -> None:
    async with run_gateway() as running, Client(url_of(running)) as client:
        positions = await running.publish(TOPIC, 5)
        page = await client.history(TOPIC, since=positions[0], limit=2)
        assert [item.position.offset for item in page.items] == [2, 3]
        assert (page.topic, page.top) == (TOPIC, positions[-1])
        with pytest.raises(Refused, match=r"unrecoverable position \(112\)"):
            await client.history(TOPIC, since=Position("other", 1))


@pytest.mark.parametrize(
    ("topic", "path", "code", "message"),
    [
        ("no such", "/ws", 102, "no such: unknown topic (102)"),
        (TOPIC, "/ws?subscriptions=slots", 106, "trades:pump: too many topics on this connection (106)"),
        (TOPIC, "/nowhere", 404, "HTTP Not Found (404)"),
    ],
)
async def test_a_final_refusal_is_raised(topic: str, path: str, code: int, message: str) -> None:
    async with run_gateway(topics_max=1) as running, Client(url_of(running, path)) as client:
        with pytest.raises(Refused) as refused:
            await anext(client.subscribe(topic))
    assert (refused.value.code, str(refused.value)) == (code, message)


async def test_after_a_final_refusal_every_call_is_refused() -> None:
    async with run_gateway() as running, Client(url_of(running, "/nowhere")) as client:
        waiting = client.subscribe("slots")
        with pytest.raises(Refused):
            await client.history(TOPIC)
        for refused in (waiting.started, client.subscribe(TOPIC).started, partial(client.history, TOPIC)):
            with pytest.raises(Refused, match="404"):
                await refused()


async def test_calls_that_wait_when_the_client_is_closed_are_refused() -> None:
    async with open_scripted() as server, Supervisor(SystemClock()) as tasks:
        async with Client(server.url) as client:
            trades = client.subscribe(TOPIC)
            await (await server.visit()).welcome()
            reading = tasks.start("test", "reading", partial(_all, trades))
            asking = tasks.start("test", "asking", partial(_refusal, client))
            await asyncio.sleep(0)
        assert await reading == []
        assert await asking == 1000


async def _all(subscription: Subscription) -> list[object]:
    return [value async for value in subscription]


async def _refusal(client: Client) -> int:
    with pytest.raises(Refused) as refused:
        await client.history(TOPIC)
    return refused.value.code


@pytest.mark.parametrize("url", ["http://127.0.0.1/ws", "127.0.0.1", "", "ws://"])
def test_a_url_that_is_no_websocket_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url: got .*, expected a ws:// or wss:// URL$"):
        Client(url)


def test_a_queue_of_zero_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="queue: got 0, expected 1 or more"):
        Client("ws://127.0.0.1/ws", queue=0)


async def test_what_a_token_provider_raises_ends_the_client() -> None:
    async def token() -> str:
        raise LookupError("no token today")

    with pytest.raises(LookupError, match="no token today"):
        async with Client("ws://127.0.0.1:9/ws", token=token) as client:
            await anext(client.subscribe(TOPIC))


async def test_delays_grow_while_nothing_comes_and_start_over_when_something_does() -> None:
    """A server that lets a client in and sends it away must not be stormed."""
    clock, visits = ManualClock(), itertools.count(1)
    losses: list[float] = []

    async def send_away(connection: ServerConnection) -> None:
        await connection.send('{"type":"welcome","data":{"connection_id":"c","ping_s":25,"pong_s":8}}')
        if next(visits) > 7:
            await connection.send('{"type":"event","topic":"slots","epoch":"e","offset":"1","data":{}}')
        await connection.close(4001, "shutdown")

    async with serve(send_away, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        backoff = Backoff(1.0, 64.0)
        async with Client(url, clock=clock, backoff=backoff, on_loss=lambda _, s: losses.append(s)) as client:
            client.subscribe("slots")
            async with asyncio.timeout(30):
                while len(losses) < 9:
                    await asyncio.sleep(0.001)
                    if clock.sleepers and not client.connected:
                        await clock.advance(64)
    ceilings = [1, 2, 4, 8, 16, 32, 64, 1, 1]
    assert all(ceiling / 2 <= delay <= ceiling for delay, ceiling in zip(losses, ceilings, strict=False))


@asynccontextmanager
async def connected(running: RunningGateway) -> AsyncIterator[Client]:
    async with Client(url_of(running)) as client:
        await client.subscribe(TOPIC).started()
        await running.clients(1)
        yield client


async def test_leaving_closes_the_socket() -> None:
    async with run_gateway() as running:
        async with connected(running):
            pass
        await running.clients(0)


async def test_a_client_that_is_closed_leaves_with_1000() -> None:
    with structlog.testing.capture_logs() as logs:
        async with run_gateway() as running:
            async with connected(running):
                pass
            await running.clients(0)
    assert [line["code"] for line in logs if line["event"] == "client_left"] == [1000]


async def test_an_error_in_the_body_is_raised_as_it_is_and_closes_the_socket() -> None:
    async with run_gateway() as running:
        with pytest.raises(ZeroDivisionError):
            async with connected(running):
                raise ZeroDivisionError
        await running.clients(0)


async def test_a_large_past_comes_whole_to_a_slow_reader() -> None:
    """The server counts it as slow, and what it missed comes later."""
    async with run_gateway(history_size=100_000) as running, quick(url_of(running)) as client:
        trades = await client.subscribe(TOPIC).started()
        for _ in range(60):
            await running.publish(TOPIC, 50, size=10_000)  # 30 MB, of which nothing is read meanwhile
            await asyncio.sleep(0)
        assert await read(trades, 3000) == list(range(1, 3001))
