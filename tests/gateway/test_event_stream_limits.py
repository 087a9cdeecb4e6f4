"""Event streams are counted as WebSockets are: by address, by user, by how fast they come, and only while they last."""

import asyncio
import time
from typing import Any

import pytest

from headrace.gateway.settings import AdmissionSettings
from headrace.runtime.clock import ManualClock
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

PATH = "/api/topics/slots/sse"


def bearer(sub: str) -> str:
    return f"Authorization: Bearer {token(sub, now_s=time.time())}\r\n"


async def ask(running: RunningGateway, more: str = "", method: str = "GET") -> Raw:
    raw = await Raw.connect(running.port)
    raw.send(f"{method} {PATH} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
    await raw.read_head()
    return raw


async def opened(running: RunningGateway, more: str = "") -> Raw:
    raw = await ask(running, more)
    assert raw.head.startswith(b"HTTP/1.1 200 "), raw.head
    return raw


async def refused(running: RunningGateway, detail: bytes, more: str = "") -> None:
    raw = await ask(running, more)
    assert raw.head.startswith(b"HTTP/1.1 429 "), raw.head
    assert b"\r\nretry-after: " in raw.head.lower()
    assert b"application/problem+json" in raw.head
    assert detail in await raw.reader.readuntil(b"}")
    raw.leave()


async def gone(running: RunningGateway, raw: Raw, left: int) -> None:
    raw.leave()
    await running.clients(left)
    async with asyncio.timeout(30):
        while running.gateway.admission.inside != left:  # noqa: ASYNC110  (a socket tells nobody when it is gone)
            await asyncio.sleep(0.001)


async def test_one_address_has_a_limit_for_both_together_and_gets_its_place_back() -> None:
    async with run_gateway(admission=AdmissionSettings(per_address_max=2)) as running:
        socket, stream = await join(running), await opened(running)
        await refused(running, b"too many connections from this address")
        assert b" 429 " in (await Raw.open(running.port)).head
        assert running.metric("gateway_refused_total", status="429") == 2
        await gone(running, stream, 1)
        stream = await opened(running)
        await gone(running, socket, 1)
        await opened(running)


async def test_one_user_has_a_limit_for_both_together() -> None:
    async with run_gateway(admission=AdmissionSettings(per_user_max=2), auth=HS256) as running:
        jwt = f"Sec-WebSocket-Protocol: stream.v1, jwt.{token('42', now_s=time.time())}\r\n"
        socket, stream = await join(running, more=jwt), await opened(running, bearer("42"))
        assert running.gateway.admission.users == {"42": 2}
        await refused(running, b"too many connections of this user", bearer("42"))
        third = await Raw.open(running.port, more=jwt)
        assert await third.closed() == 4504
        third.leave()
        other = await opened(running, bearer("43"))
        await gone(running, stream, 2)
        stream = await opened(running, bearer("42"))
        await gone(running, other, 2)
        await gone(running, stream, 1)
        await gone(running, socket, 0)
        assert not running.gateway.admission.users


async def test_streams_that_come_too_fast_are_refused() -> None:
    clock = ManualClock()
    async with run_gateway(admission=AdmissionSettings(connects_per_s=1), clock=clock) as running:
        await opened(running)
        await refused(running, b"too many new connections from this address")
        await clock.advance(1.0)
        await opened(running)


async def test_streams_behind_a_trusted_proxy_count_separately() -> None:
    settings = AdmissionSettings(per_address_max=1, trusted_proxies=("127.0.0.1",))
    async with run_gateway(admission=settings) as running:
        for last in (1, 2):
            await opened(running, f"X-Forwarded-For: 203.0.113.{last}\r\n")
        await refused(running, b"from this address", "X-Forwarded-For: 198.51.100.1, 203.0.113.2\r\n")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_stream_that_never_begins_is_not_counted(method: str) -> None:
    async with run_gateway(admission=AdmissionSettings(per_address_max=1)) as running:
        taken: Any = None
        for _ in range(3):
            raw = await ask(running, method=method)
            if method == "GET":
                taken, raw = raw, await ask(running)
                assert b" 429 " in raw.head
                await gone(running, taken, 0)
            assert running.gateway.admission.inside == 0
            raw.leave()
