"""Requests and connections leave nothing behind that only the garbage collector can free."""

import asyncio
import gc
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine

import pytest
import uvloop
from litestar import get

from headrace.gateway.routes.guards import OPEN
from tests.gateway.issuer import HS256
from tests.gateway.running_gateway import PATIENCE_S, Raw, RunningGateway, run_gateway

REQUESTS = 200
CONNECTIONS = 40

Work = Callable[[RunningGateway], Awaitable[None]]


async def garbage_after(work: Callable[[], Awaitable[None]]) -> Counter[str]:
    """Types of the objects that the collector finds after `work`."""
    await asyncio.sleep(0.05)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await work()
        await asyncio.sleep(0.05)  # closed transports are dropped in a later turn of the loop
        gc.collect()
        return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def requests_for(path: str, method: str = "GET") -> Work:
    """Requests on one connection that stays."""

    async def work(running: RunningGateway) -> None:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            for _ in range(REQUESTS):
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            writer.close()

    return work


async def closed_connections(running: RunningGateway) -> None:
    for _ in range(CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()


async def event_streams(running: RunningGateway) -> None:
    for _ in range(CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /api/topics/slots/sse HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.readuntil(b"subscribed")
        writer.transport.abort()
    await running.clients(0)


def sockets(*commands: str, path: str = "/ws") -> Work:
    """WebSocket connections that send these commands, each of which is answered."""

    async def work(running: RunningGateway) -> None:
        for _ in range(CONNECTIONS):
            raw = await Raw.open(running.port, path)
            await raw.receive()
            for number, command in enumerate(commands):
                raw.ask(command, number, topic="slots")
                await raw.receive()
            raw.leave()
            raw.writer.close()
            forget(raw)
        await running.clients(0)

    return work


def forget(raw: Raw) -> None:
    from tests.gateway import running_gateway

    running_gateway._opened.remove(raw)


async def abandoned_requests(running: RunningGateway) -> None:
    """Clients that leave while their request is worked on."""
    for _ in range(CONNECTIONS):
        before = ABANDONED.begun
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        while ABANDONED.begun == before:  # noqa: ASYNC110  (seen from outside only)
            await asyncio.sleep(0)
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
        writer.transport.abort()
        while running.gateway._http.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
        ABANDONED.go_on.set()
        await asyncio.sleep(0)
        ABANDONED.go_on.clear()


async def cut_requests(running: RunningGateway) -> None:
    """Clients that leave in the middle of their request."""
    for _ in range(CONNECTIONS):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"POST /api/tickets HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf")
        await asyncio.sleep(0)
        writer.transport.abort()
    await running.clients(0)


class Abandoned:
    """Number of requests of `/slow` that have begun, and the event that lets them go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = 0, asyncio.Event()


ABANDONED = Abandoned()


@get("/slow", opt=OPEN)
async def slow() -> str:
    ABANDONED.begun += 1
    await ABANDONED.go_on.wait()
    return "done"


WORK: dict[str, Work] = {
    "an answer": requests_for("/health/live"),
    "a page of history": requests_for("/api/topics/slots/history"),
    "an unknown path": requests_for("/nowhere"),
    "a wrong parameter": requests_for("/api/topics?limit=x"),
    "two wrong parameters": requests_for("/api/topics/slots/history?limit=x&reverse=y"),
    "a wrong method": requests_for("/api/topics", method="DELETE"),
    "connections that close": closed_connections,
    "event streams": event_streams,
    "abandoned requests": abandoned_requests,
    "cut requests": cut_requests,
    "sockets": sockets(),
    "sockets that subscribe": sockets("subscribe", "history", "unsubscribe", "nonsense"),
    "sockets of a user": sockets("subscribe", path="/ws?user_id=42"),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_requests_and_connections_leave_no_cycle(work: Work) -> None:
    async def check() -> None:
        ABANDONED.go_on = asyncio.Event()
        async with run_gateway(cmd_per_s=1000, handlers=[slow]) as running:
            await running.publish("slots")
            await work(running)  # what is made once, at the first request, is no leak
            assert not await garbage_after(lambda: work(running))

    run(check())


@pytest.mark.long
@pytest.mark.parametrize(("name", "times"), [("an answer", 25), ("sockets that subscribe", 84)])
def test_ten_thousand_leave_no_cycle(name: str, times: int) -> None:
    async def often(running: RunningGateway) -> None:
        for _ in range(times):
            await WORK[name](running)

    async def check() -> None:
        async with run_gateway(cmd_per_s=1000) as running:
            await running.publish("slots")
            await WORK[name](running)
            assert not await garbage_after(lambda: often(running))

    run(check())


def test_refused_credentials_leave_no_cycle() -> None:
    async def check() -> None:
        work = requests_for("/api/topics")
        async with run_gateway(auth=HS256) as running:
            await work(running)
            assert not await garbage_after(lambda: work(running))

    run(check())


def run(check: Coroutine[None, None, None]) -> None:
    """On the loop of the service: transports of asyncio's own loop are cycles."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check)
