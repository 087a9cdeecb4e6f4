"""Starting and stopping: free ports, taken ports, drains and deadlines."""

import asyncio
import socket

import pytest

from headrace.model.errors import ConfigError
from tests.gateway.running_gateway import Raw, join, run_gateway


async def test_port_zero_takes_a_free_port_and_shows_it() -> None:
    async with run_gateway() as running:
        assert running.port > 0
        assert running.health.components()["gateway"].ready


async def test_a_taken_port_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            async with run_gateway(port=port):
                pass


async def test_stopping_sends_what_waits_then_4001() -> None:
    async with run_gateway() as running:
        raw = await join(running, "/ws?subscriptions=slots")
        assert (await raw.json())["type"] == "subscribed"
        await running.publish("slots", 3)
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        assert [(await raw.json())["offset"] for _ in range(3)] == ["1", "2", "3"]
        assert await raw.closed() == 4001
        raw.leave()
        await stopping
        with pytest.raises(OSError, match="Connect call failed"):
            await Raw.connect(running.port)
        assert not running.health.ready


async def test_a_client_that_ignores_the_close_does_not_hold_up_the_stop() -> None:
    async with run_gateway(close_s=60) as running:
        raw = await join(running)
        async with asyncio.timeout(30):
            await running.gateway.stop(0.2)
        assert await raw.closed() == 4001
        assert (await raw.receive())[0] == "eof"
        raw.leave()


@pytest.mark.parametrize("iterations", range(6))
async def test_sockets_accepted_during_the_stop_are_closed(iterations: int) -> None:
    async with run_gateway() as running:
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", running.port))
            for _ in range(iterations):
                await asyncio.sleep(0)
            await running.gateway.stop(0.0)
            async with asyncio.timeout(30):
                try:
                    ended = await asyncio.get_running_loop().sock_recv(client, 1) == b""
                except ConnectionError:
                    ended = True
            assert ended


async def test_new_streams_are_refused_while_draining() -> None:
    async with run_gateway(close_s=60) as running:
        kept = await Raw.connect(running.port)
        raw = await join(running)
        stopping = asyncio.create_task(running.gateway.stop(1.0))
        await asyncio.sleep(0)
        kept.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        kept.send(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert b" 503 " in await kept.read_head()
        raw.leave()
        kept.leave()
        await stopping


async def test_refusals_while_draining_have_retry_after() -> None:
    async with run_gateway(close_s=60) as running:
        await join(running)
        stopping = asyncio.create_task(running.gateway.stop(1.0))
        await asyncio.sleep(0)
        raw = await Raw.open(running.port)
        assert b" 503 " in raw.head
        assert b"Retry-After: " in raw.head
        ready = await Raw.connect(running.port)
        ready.send(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 503 " in await ready.read_head()
        for one in (raw, ready):
            one.leave()
        await stopping


async def test_pending_commands_are_answered_before_the_close() -> None:
    async with run_gateway() as running:
        await running.publish("slots", 3)
        raw = await join(running)
        raw.ask("history", 1, topic="slots")
        raw.ask("subscribe", 2, topic="slots")
        async with asyncio.timeout(30):
            while not running.gateway.hub.owing:  # noqa: ASYNC110  (until it has heard us)
                await asyncio.sleep(0)
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        answers = [await raw.json(), await raw.json()]
        assert sorted(answer["type"] for answer in answers) == ["history", "subscribed"]
        assert await raw.closed() == 4001
        raw.leave()
        await stopping


async def test_clients_leave_one_after_another_and_get_what_comes_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.gateway.server.CLOSES_PER_S", 20)
    async with run_gateway() as running:
        raws = [await join(running, "/ws?subscriptions=slots") for _ in range(10)]
        for raw in raws:
            assert (await raw.json())["type"] == "subscribed"
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        assert await raws[0].closed() == 4001
        await running.publish("slots")
        assert (await raws[-1].json())["offset"] == "1"
        assert [await raw.closed() for raw in raws[1:]] == [4001] * 9
        for raw in raws:
            raw.leave()
        await stopping
