"""Clients that don't read, vanish or break: what becomes of them, and that nobody else notices."""

import asyncio
import json
import socket
import struct
from typing import Any, cast

import pytest

from headrace.fanout.pages import HISTORY_PAGE_BYTES
from headrace.gateway.transports.websocket import Connection
from tests.gateway.running_gateway import PING, TEXT, Raw, RunningGateway, frame, join, run_gateway

TOPIC = "trades:pump"


async def stalled_client(running: RunningGateway, **wishes: Any) -> Raw:
    """One that is subscribed and then never reads."""
    raw = await narrow_client(running)
    await subscribe(raw, **wishes)
    return raw


async def narrow_client(running: RunningGateway, path: str = "/ws") -> Raw:
    """One whose receive buffer is as small as the system allows."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", running.port))
    raw = Raw(*await asyncio.open_connection(sock=connection, limit=1024))
    raw.send(b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % path.encode())
    raw.send(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    await raw.read_head()
    assert (await raw.json())["type"] == "welcome"
    return raw


def only_connection(running: RunningGateway) -> Connection:
    """The server's end of the one client's connection."""
    (client,) = running.gateway.hub.clients
    connection = cast("asyncio.Transport", client.wire).get_protocol()
    assert isinstance(connection, Connection)
    return connection


async def subscribe(raw: Raw, **wishes: Any) -> None:
    raw.ask("subscribe", 1, topic=TOPIC, **wishes)
    assert (await raw.json())["type"] == "subscribed"


async def read_all(raw: Raw, count: int) -> list[int]:
    return [int((await raw.json())["offset"]) for _ in range(count)]


async def publish_slowly(running: RunningGateway, count: int, size: int) -> None:
    """In batches with a tick between, as a stream comes."""
    for _ in range(count // 10):
        await running.publish(TOPIC, 10, size)
        await asyncio.sleep(0.001)


SMALL: dict[str, Any] = {"send_buffer_bytes": 4096, "write_buffer_bytes": 16_384}


async def test_a_client_that_never_reads_is_aborted_and_others_get_everything() -> None:
    async with run_gateway(slow_abort_s=3600, **SMALL) as running:
        stalled = await stalled_client(running)
        connection = only_connection(running)
        healthy = [await join(running) for _ in range(20)]
        for raw in healthy:
            await subscribe(raw)
        readers = [asyncio.create_task(read_all(raw, 1000)) for raw in healthy]
        await publish_slowly(running, 1000, 1000)
        assert await asyncio.gather(*readers) == [list(range(1, 1001))] * 20
        assert connection in running.gateway.keeper.stuck
        connection.still_full()  # its time is over; a deadline of a second would also meet who waits for a busy machine
        connection.still_full()
        await running.clients(20)
        assert running.metric("gateway_paused_total") >= 1
        for raw in [stalled, *healthy]:
            raw.leave()


async def test_a_client_that_reads_in_time_misses_nothing() -> None:
    async with run_gateway(slow_abort_s=30, history_size=5000, **SMALL) as running:
        stalled = await stalled_client(running)
        await publish_slowly(running, 2000, 1000)
        assert running.metric("gateway_paused_total") >= 1
        assert await read_all(stalled, 2000) == list(range(1, 2001))
        await running.publish(TOPIC, 3)
        assert await read_all(stalled, 3) == [2001, 2002, 2003]
        stalled.leave()


async def test_a_client_that_reads_slowly_stays() -> None:
    """Its socket is full whenever somebody looks: it is slow, not gone."""
    settings = SMALL | {"write_buffer_bytes": 262_144}
    async with run_gateway(slow_abort_s=3600, history_size=5000, **settings) as running:
        slow = await stalled_client(running)
        await publish_slowly(running, 1000, 1000)
        connection, looks = only_connection(running), 0
        for offset in range(1, 1001):
            assert int((await slow.json())["offset"]) == offset
            if offset % 50 == 0 and connection in running.gateway.keeper.stuck:
                connection.still_full()
                looks += 1
        assert looks > 1
        slow.leave()


async def test_a_client_that_took_nothing_between_two_checks_is_aborted() -> None:
    async with run_gateway(slow_abort_s=3600, **SMALL) as running:
        stalled = await stalled_client(running)
        await publish_slowly(running, 1000, 1000)
        connection = only_connection(running)
        connection.still_full()  # it may have taken some since its socket was full
        connection.still_full()
        await running.clients(0)
        stalled.leave()


async def test_a_client_that_reads_too_late_gets_the_exact_lag() -> None:
    async with run_gateway(slow_abort_s=30, history_size=50, **SMALL) as running:
        stalled = await stalled_client(running)
        await publish_slowly(running, 2000, 1000)
        last = 0
        while (got := await stalled.json())["type"] == "event":
            assert int(got["offset"]) == last + 1
            last += 1
        assert 0 < last < 2000
        lost = {"epoch": "g", "from_offset": str(last + 1), "to_offset": "2000", "dropped": 2000 - last}
        assert got == {"type": "lag", "topic": TOPIC, "data": lost}
        assert await stalled.closed() == 4008
        assert running.metric("gateway_dropped_messages_total") == 2000 - last
        assert running.metric("gateway_closed_total", code="4008") == 1
        stalled.leave()


async def test_a_replay_that_fills_the_socket_loses_nothing_with_drop_oldest() -> None:
    async with run_gateway(slow_abort_s=30, **SMALL) as running:
        await running.publish(TOPIC, 3, 60_000)
        stalled = await stalled_client(running, on_slow="drop_oldest", recover={"epoch": "g", "offset": "0"})
        assert await read_all(stalled, 3) == [1, 2, 3]
        await running.live(TOPIC)
        await running.publish(TOPIC, 2)
        assert await read_all(stalled, 2) == [4, 5]
        stalled.leave()


async def test_a_client_that_floods_pings_and_never_reads_is_aborted() -> None:
    async with run_gateway(slow_abort_s=0.3, cmd_per_s=1_000_000, **SMALL) as running:
        stalled = await stalled_client(running)
        stalled.send(frame(PING, b"x" * 125) * 20_000)
        await running.clients(0)
        stalled.leave()


async def test_a_burst_larger_than_every_buffer_reaches_a_reading_client_whole() -> None:
    async with run_gateway(history_size=20_000) as running:
        raw = await join(running)
        await subscribe(raw)
        reader = asyncio.create_task(read_all(raw, 10_000))
        for _ in range(10):
            await running.publish(TOPIC, 1000, 1000)
        assert await reader == list(range(1, 10_001))
        raw.leave()


async def test_recovery_larger_than_every_buffer_arrives_whole_while_the_topic_goes_on() -> None:
    async with run_gateway(history_size=20_000) as running:
        await running.publish(TOPIC, 8000, 1000)
        raw = await join(running)
        raw.ask("subscribe", 1, topic=TOPIC, recover={"epoch": "g", "offset": "0"})
        answer = (await raw.json())["data"]
        assert (answer["recovered"], answer["replayed"]) == (True, 8000)
        reader = asyncio.create_task(read_all(raw, 9000))
        await publish_slowly(running, 1000, 1000)
        assert await reader == list(range(1, 9001))
        raw.leave()


async def test_silence_ends_with_4012() -> None:
    async with run_gateway(ping_s=0.05, pong_s=0.1) as running:
        raw = await join(running)
        assert await raw.closed() == 4012
        assert running.metric("gateway_closed_total", code="4012") == 1
        raw.leave()


@pytest.mark.parametrize("answer", [frame(TEXT, b'{"type":"pong"}'), frame(PING), frame(TEXT, b"not even JSON")])
async def test_any_inbound_frame_is_a_pong(answer: bytes) -> None:
    async with run_gateway(ping_s=0.05, pong_s=0.2) as running:
        raw = await join(running)
        pings = 0
        while pings < 7:
            opcode, payload = await raw.receive()
            assert opcode != 8
            if opcode == TEXT and json.loads(payload)["type"] == "ping":
                pings += 1
                raw.send(answer)
        raw.leave()


async def test_a_pong_counts_however_soon_it_comes() -> None:
    async with run_gateway(ping_s=0.2, pong_s=0.1) as running:
        raw = await join(running)
        for _ in range(4):
            assert (await raw.json())["type"] == "ping"
            raw.send(frame(TEXT, b'{"type":"pong"}'))
        raw.leave()


async def test_a_frame_before_the_heartbeat_is_no_answer() -> None:
    async with run_gateway(ping_s=0.2, pong_s=0.4) as running:
        raw = await join(running)
        raw.ask("subscribe", 1, topic="slots")
        assert await raw.closed() == 4012
        raw.leave()


async def test_heartbeats_carry_head_and_tops() -> None:
    async with run_gateway(ping_s=0.05) as running:
        raw = await join(running, "/ws?subscriptions=slots,trades:pump")
        await running.publish(TOPIC, 3)
        while (beat := await raw.json())["type"] != "ping" or beat["data"]["tops"] == {}:
            pass
        assert beat["data"]["head"] == {"processed": None, "confirmed": None}
        assert beat["data"]["tops"][TOPIC] == "3"
        assert beat["data"]["ts"] > 1_700_000_000_000
        raw.leave()


async def test_clients_that_vanish_in_any_way_are_forgotten() -> None:
    async with run_gateway() as running:
        watcher = await join(running)
        await subscribe(watcher)
        for how in ("reset", "half a frame", "end of stream", "end inside a fragmented message"):
            raw = await join(running)
            await subscribe(raw)
            if how == "reset":
                sock = raw.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.leave()
            elif how == "half a frame":
                raw.send(frame(TEXT, b"x" * 1000)[:500])
                raw.leave()
            elif how == "end of stream":
                raw.writer.write_eof()
            else:
                raw.send(frame(TEXT, b"x", fin=False))
                raw.writer.write_eof()
            await running.publish(TOPIC)
            await running.clients(1)
            raw.leave()
        assert await read_all(watcher, 4) == [1, 2, 3, 4]
        watcher.leave()


async def test_a_client_that_does_not_answer_our_close_is_aborted() -> None:
    async with run_gateway(close_s=0.1) as running:
        raw = await join(running)
        raw.send(frame(TEXT, b"x") * 10)
        assert await raw.closed() == 4501
        assert (await raw.receive())[0] == "eof"
        raw.leave()


async def test_a_client_that_asks_for_much_history_and_reads_nothing_is_owed_one_page() -> None:
    async with run_gateway(slow_abort_s=3600, **SMALL) as running:
        await running.publish(TOPIC, 10, 60_000)
        greedy = await narrow_client(running)
        asked = [json.dumps({"type": "history", "id": n, "data": {"topic": TOPIC}}).encode() for n in range(20)]
        greedy.send(*(frame(TEXT, each) for each in asked))
        async with asyncio.timeout(30):
            while not (running.metric("gateway_paused_total") and running.metric("gateway_commands_total") == 20):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            while running.gateway.hub.owing:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert only_connection(running).transport.get_write_buffer_size() < 2 * HISTORY_PAGE_BYTES
        answers = [await greedy.json() for _ in range(20)]
        assert [(answer["id"], len(answer["data"]["items"])) for answer in answers] == [(n, 8) for n in range(20)]
        greedy.leave()
