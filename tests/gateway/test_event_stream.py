"""Topics as server-sent events: resumed without a hole or a repeat, and held to the rules of the WebSocket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import httpx
import pytest
from litestar import MediaType, Response, get

from headrace.fanout.client import Client
from headrace.fanout.feeds import Feed
from headrace.fanout.framing import events
from headrace.fanout.groups import ClientSubscription
from headrace.fanout.windows import Windows
from headrace.gateway.transports.event_stream import RETRY_AFTER_STOP_MS, RETRY_MS
from headrace.model.events import Message, MessageKind, Position, Publication, TopicEpoch
from headrace.protocol.frames import Head, event_frame
from headrace.runtime.clock import ManualClock
from tests.fanout.hub_machine import Wire
from tests.fanout.test_slow_clients import SMALL, publish_slowly
from tests.gateway.browser import needs_chromium, open_browser
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

TOPIC = "trades:pump"
PATH = f"/api/topics/{TOPIC}/sse"


class Told(NamedTuple):
    """One event as an EventSource hands it over."""

    event: str
    data: Any
    id: str
    """The last id so far, which is what it would come back with."""


class Reader:
    """Reads an answer's chunks, and events in them as the standard says."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._lines: list[str] = []
        self.id, self.retry_ms = "", 0

    async def next(self) -> Told:
        """The next event that has data. Raises EOFError at the end of the body."""
        event, data = "message", ""
        while True:
            name, _, value = (await self._line()).partition(": ")
            match name:
                case "event":
                    event = value
                case "data":
                    data = value
                case "id":
                    self.id = value
                case "retry":
                    self.retry_ms = int(value)
                case "" if data:
                    return Told(event, json.loads(data), self.id)
                case "":
                    event = "message"
                case _:
                    raise AssertionError(name)

    async def _line(self) -> str:
        if not self._lines:
            async with asyncio.timeout(30):
                size = int(await self._raw.reader.readuntil(b"\r\n"), 16)
                chunk = (await self._raw.reader.readexactly(size + 2)).decode()
            assert chunk.endswith("\n\n\r\n" if size else "\r\n")  # an event is never cut
            if not size:
                raise EOFError
            self._lines = chunk[:-3].split("\n")
        return self._lines.pop(0)

    async def offsets(self, count: int) -> list[int]:
        return [int((await self.next()).data["offset"]) for _ in range(count)]


@asynccontextmanager
async def follow(running: RunningGateway, last: str | None = None, path: str = PATH) -> AsyncIterator[Reader]:
    raw = await Raw.connect(running.port)
    more = "" if last is None else f"Last-Event-ID: {last}\r\n"
    raw.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
    head = await raw.read_head()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ncontent-type: text/event-stream\r\n" in head
    assert b"\r\ncache-control: no-store\r\n" in head
    yield Reader(raw)
    raw.leave()


async def refused(running: RunningGateway, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http:
        response = await http.get(path, headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    return response


async def test_every_message_comes_as_the_websocket_has_it() -> None:
    bodies: list[tuple[MessageKind, bytes]] = [
        ("event", b'"event_id":"e","data":{"name":"a\\nid: 7\\u2028"},"chain":{}'),
        ("promote", b'"data":{"slot":"4","commitment":"confirmed"}'),
        ("retract", b'"data":{"event_ids":["e"],"reason":"fork"}'),
        ("gap", b'"data":{"gap_id":"g",\n"from_slot":"1"}'),
    ]
    async with run_gateway() as running, follow(running) as reader:
        first = await reader.next()
        assert (first.event, first.id) == ("subscribed", "g:0")
        assert RETRY_MS[0] <= reader.retry_ms <= RETRY_MS[1]
        raw = await join(running, f"/ws?subscriptions={TOPIC}")
        assert (await raw.json())["data"]["recovered"] is first.data["data"]["recovered"] is False
        await running.bus.publish([Publication.on(TOPIC, kind, body) for kind, body in bodies])
        for number, (kind, _) in enumerate(bodies, 1):
            told = await reader.next()
            assert told.data == await raw.json()
            assert (told.event, told.id) == ("message" if kind == "event" else kind, f"g:{number}")
        raw.leave()


@pytest.mark.parametrize("known", range(6))
async def test_a_stream_continues_after_the_last_event_id(known: int) -> None:
    async with run_gateway() as running:
        await running.publish(TOPIC, 5)
        async with follow(running, f"g:{known}") as reader:
            answer = await reader.next()
            assert answer.data["data"] == {
                "epoch": "g", "offset": "5", "was_recovering": True, "recovered": True, "replayed": 5 - known,
            }  # fmt: skip
            assert answer.id == ""  # cut off now, it would ask for the same again
            await running.publish(TOPIC, 2)
            assert await reader.offsets(7 - known) == list(range(known + 1, 8))
            assert reader.id == "g:7"


async def test_the_url_can_name_the_first_position_and_the_header_goes_before_it() -> None:
    async with run_gateway() as running:
        await running.publish(TOPIC, 5)
        for last, first in ((None, 3), ("g:4", 5)):
            async with follow(running, last, f"{PATH}?epoch=g&offset=2") as reader:
                await reader.next()
                assert await reader.offsets(1) == [first]


@pytest.mark.parametrize("last", ["x:3", "g:99", "g:1"], ids=["another epoch", "not yet", "no longer kept"])
async def test_an_unrecoverable_position_is_reported(last: str) -> None:
    async with run_gateway(history_size=3) as running:
        await running.publish(TOPIC, 5)
        async with follow(running, last) as reader:
            answer = await reader.next()
            assert answer.data["data"]["was_recovering"] is True
            assert answer.data["data"]["recovered"] is False
            assert answer.id == "g:5"
            await running.publish(TOPIC)
            assert await reader.offsets(1) == [6]


async def test_cut_off_again_and_again_it_misses_and_repeats_nothing() -> None:
    async with run_gateway(history_size=5000) as running:
        got: list[int] = []
        last: str | None = "g:0"
        publishing = asyncio.create_task(publish_slowly(running, 600, 100))
        for part in range(12):
            async with follow(running, last) as reader:
                assert (await reader.next()).data["data"]["recovered"] is True
                got += await reader.offsets(1 + part * 7 % 50)
                last = reader.id
        await publishing
        async with follow(running, last) as reader:
            await reader.next()
            got += await reader.offsets(600 - len(got))
        assert got == list(range(1, 601))


def test_all_who_follow_a_topic_share_its_bytes() -> None:
    feed = Feed(TOPIC, Windows(ManualClock(), lambda group: None))
    group, clients = feed.add(None, None, 0), [Client(Wire(), framing=events) for _ in range(3)]
    for client in clients:
        group.join(ClientSubscription(client, group, None), Position("g", 0))
    feed.take(Message(TopicEpoch(TOPIC, "g"), "event", 1, b'"data":{}'), [])
    group.cut(event_frame, [])
    assert clients[0].out
    assert all(client.out is clients[0].out for client in clients)


async def test_heartbeats_contain_the_head_and_need_no_answer() -> None:
    async with (
        run_gateway(ping_s=0.05, pong_s=0.05, head=lambda: Head(7, 5, 180)) as running,
        follow(running) as reader,
    ):
        await reader.next()
        for _ in range(5):
            beat = await reader.next()
            assert (beat.event, beat.id) == ("ping", "g:0")
            assert beat.data["data"]["head"] == {"processed": "7", "confirmed": "5"}
            assert beat.data["data"]["tops"] == {TOPIC: "0"}


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has TCP's own patience only")
async def test_a_vanished_client_is_dropped_by_the_kernel() -> None:
    async with run_gateway(ping_s=3, pong_s=0.5) as running, follow(running) as reader:
        await reader.next()
        (client,) = running.gateway.hub.clients
        plug = cast("asyncio.Transport", client.wire).get_extra_info("socket")
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3500


async def test_streams_count_as_connections() -> None:
    async with run_gateway(connections_max=2, http_connections_max=3) as running:
        raw = await join(running)
        async with follow(running) as reader:
            await reader.next()
            async with httpx.AsyncClient(verify=False) as http:
                counted = (await http.get(f"http://127.0.0.1:{running.port}/api/ws/connections")).json()
            assert (counted["total_connections"], counted["topics"]) == (2, {TOPIC: 1})
            response = await refused(running, PATH)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        await running.clients(1)  # it left
        async with follow(running) as reader:
            assert (await reader.next()).event == "subscribed"
        raw.leave()


async def test_streams_leave_room_for_requests() -> None:
    """They are no longer among the connections that are not yet anything."""
    async with (
        run_gateway(http_connections_max=2) as running,
        follow(running),
        follow(running),
        follow(running),
        httpx.AsyncClient(verify=False) as http,
    ):
        assert (await http.get(f"http://127.0.0.1:{running.port}/health/live")).status_code == 200


async def test_a_stop_sends_waiting_events_and_a_longer_retry() -> None:
    async with run_gateway() as running, follow(running) as reader:
        await reader.next()
        await running.publish(TOPIC, 3)
        stopping = asyncio.create_task(running.gateway.stop(5.0))
        assert await reader.offsets(3) == [1, 2, 3]
        last = await reader.next()
        assert last.event == "close"
        assert last.data == {"type": "close", "data": {"code": 4001, "reason": "shutdown", "reconnect": True}}
        assert RETRY_AFTER_STOP_MS[0] <= reader.retry_ms <= RETRY_AFTER_STOP_MS[1]
        assert reader.id == "g:3"
        with pytest.raises(EOFError):
            await reader.next()
        await stopping
        assert running.metric("gateway_closed_total", code="4001") == 1


async def test_new_streams_are_refused_while_draining() -> None:
    async with run_gateway(close_s=60) as running:
        kept = await Raw.connect(running.port)
        raw = await join(running)
        stopping = asyncio.create_task(running.gateway.stop(1.0))
        await asyncio.sleep(0)
        kept.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 503 " in await kept.read_head()
        raw.leave()
        kept.leave()
        await stopping


async def stalled_stream(running: RunningGateway) -> Raw:
    """One that hears that it is subscribed, and then never reads."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", running.port))
    raw = Raw(*await asyncio.open_connection(sock=connection, limit=4096))
    raw.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(30):
        await raw.reader.readuntil(b'"replayed":0}}\n\n\r\n')
    return raw


async def test_a_client_that_never_reads_is_dropped() -> None:
    async with run_gateway(slow_abort_s=0.5, **SMALL) as running:
        stalled = await stalled_stream(running)
        await publish_slowly(running, 1000, 1000)
        await running.clients(0)
        assert running.metric("gateway_paused_total") >= 1
        stalled.leave()


async def test_a_client_that_reads_too_late_gets_lag_and_close() -> None:
    async with run_gateway(slow_abort_s=30, history_size=50, **SMALL) as running:
        stalled = await stalled_stream(running)
        await publish_slowly(running, 2000, 1000)
        async with asyncio.timeout(30):
            body = await stalled.reader.read()
        assert body.endswith(b"0\r\n\r\n")
        told = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
        offsets = [int(frame["offset"]) for frame in told if frame["type"] == "event"]
        lag, close = told[-2:]
        assert offsets == list(range(1, len(offsets) + 1))
        assert lag["data"] == {
            "epoch": "g", "from_offset": str(len(offsets) + 1), "to_offset": "2000", "dropped": 2000 - len(offsets),
        }  # fmt: skip
        assert close["data"]["code"] == 4008
        assert running.metric("gateway_dropped_messages_total") == 2000 - len(offsets)
        stalled.leave()


async def test_a_client_that_reads_in_time_misses_nothing() -> None:
    async with run_gateway(slow_abort_s=30, history_size=5000, **SMALL) as running:
        stalled = await stalled_stream(running)
        await publish_slowly(running, 1000, 1000)
        assert running.metric("gateway_paused_total") >= 1
        for offset in range(1, 1001):
            async with asyncio.timeout(30):
                await stalled.reader.readuntil(b"id: ")
                assert await stalled.reader.readline() == b"g:%d\n" % offset
        stalled.leave()


async def test_a_client_that_goes_on_sending_is_dropped_unanswered() -> None:
    async with run_gateway(body_bytes_max=10_000) as running:
        raw = await Raw.connect(running.port)
        raw.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"text/event-stream" in await raw.read_head()
        assert b"retry" in await raw.reader.readuntil(b"event: subscribed")
        raw.send(b"x" * 20_000)
        async with asyncio.timeout(30):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                assert b"live" not in await raw.reader.readexactly(100_000)
        await running.clients(0)


async def test_a_client_that_leaves_is_forgotten() -> None:
    async with run_gateway() as running:
        for _ in range(3):
            async with follow(running) as reader:
                await reader.next()
            await running.clients(0)
        assert not running.gateway.hub.topics()


async def test_head_has_no_stream_behind_it() -> None:
    async with run_gateway() as running, httpx.AsyncClient(verify=False) as http:
        for _ in range(2):
            response = await http.head(f"http://127.0.0.1:{running.port}{PATH}")
            assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert not running.gateway.hub.clients


@pytest.mark.parametrize("last", ["", " "])
async def test_an_empty_last_event_id_counts_as_none(last: str) -> None:
    async with run_gateway() as running:
        await running.publish(TOPIC)
        async with follow(running, last) as reader:
            assert (await reader.next()).data["data"]["was_recovering"] is False


@pytest.mark.parametrize(
    "last", [":", "g", "g:", ":1", "g:-1", "g:1.5", "g:18446744073709551616", "é:1", "g:٣", f"{'g' * 65}:1", "g" * 9000]
)
async def test_a_foreign_last_event_id_is_refused(last: str) -> None:
    async with run_gateway() as running:
        raw = await Raw.connect(running.port)
        raw.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {last}\r\nConnection: close\r\n\r\n".encode())
        head = await raw.read_head()
        assert b" 400 " in head
        assert json.loads(await raw.reader.read())["errors"][0]["name"] == "Last-Event-ID"
        raw.leave()


PAGE = """<!doctype html><meta charset="utf-8"><script>
window.heard = []; window.opened = 0;
const source = new EventSource(PATH);
source.onopen = () => opened++;
source.onmessage = (event) => heard.push(event.lastEventId);
for (const kind of ["subscribed", "retract", "close"]) source.addEventListener(kind, (event) => heard.push(kind));
</script>"""


@needs_chromium
async def test_an_eventsource_in_a_browser_recovers_its_position() -> None:
    policy = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'; connect-src 'self'"}

    @get("/try", sync_to_thread=False)
    def page() -> Response[str]:
        return Response(PAGE.replace("PATH", json.dumps(PATH)), media_type=MediaType.HTML, headers=policy)

    async with run_gateway(handlers=(page,)) as running, open_browser() as browser:
        await browser.open(f"http://127.0.0.1:{running.port}/try")
        await browser.until("heard.includes('subscribed')")
        await running.publish(TOPIC, 2)
        await running.bus.publish([Publication.on(TOPIC, "retract", b'"data":{"event_ids":[],"reason":"fork"}')])
        await browser.until("heard.includes('retract')")
        (client,) = running.gateway.hub.clients
        client.wire.abort()  # type: ignore[attr-defined]
        await running.clients(0)
        await running.publish(TOPIC, 2)
        await browser.until("heard.includes('g:5')")
        assert await browser.evaluate("heard") == [
            "subscribed", "g:1", "g:2", "retract", "subscribed", "g:4", "g:5",
        ]  # fmt: skip
        assert await browser.evaluate("opened") == 2
