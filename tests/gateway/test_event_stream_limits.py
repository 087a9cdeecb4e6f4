"""Event streams are counted as WebSockets are: by address, by user, by how fast they come, and only while they last."""

import asyncio
import time
from typing import Any

import pytest

from headrace.gateway.admission import AdmissionSettings
from headrace.runtime.clock import ManualClock
from tests.gateway.house import House, Raw, join, open_house
from tests.gateway.issuer import HS256, token

PATH = "/api/topics/slots/sse"


def bearer(sub: str) -> str:
    return f"Authorization: Bearer {token(sub, now_s=time.time())}\r\n"


async def ask(house: House, more: str = "", method: str = "GET") -> Raw:
    raw = await Raw.connect(house.port)
    raw.send(f"{method} {PATH} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
    await raw.read_head()
    return raw


async def opened(house: House, more: str = "") -> Raw:
    raw = await ask(house, more)
    assert raw.head.startswith(b"HTTP/1.1 200 "), raw.head
    return raw


async def refused(house: House, detail: bytes, more: str = "") -> None:
    raw = await ask(house, more)
    assert raw.head.startswith(b"HTTP/1.1 429 "), raw.head
    assert b"\r\nretry-after: " in raw.head.lower()
    assert b"application/problem+json" in raw.head
    assert detail in await raw.reader.readuntil(b"}")
    raw.leave()


async def gone(house: House, raw: Raw, left: int) -> None:
    raw.leave()
    await house.clients(left)
    async with asyncio.timeout(30):
        while house.gateway.admission.inside != left:  # noqa: ASYNC110  (a socket tells nobody when it is gone)
            await asyncio.sleep(0.001)


async def test_one_address_has_a_limit_for_both_together_and_gets_its_place_back() -> None:
    async with open_house(admission=AdmissionSettings(per_address_max=2)) as house:
        socket, stream = await join(house), await opened(house)
        await refused(house, b"too many connections from this address")
        assert b" 429 " in (await Raw.open(house.port)).head
        assert house.metric("gateway_refused_total", status="429") == 2
        await gone(house, stream, 1)
        stream = await opened(house)
        await gone(house, socket, 1)
        await opened(house)


async def test_one_user_has_a_limit_for_both_together() -> None:
    async with open_house(admission=AdmissionSettings(per_user_max=2), auth=HS256) as house:
        jwt = f"Sec-WebSocket-Protocol: stream.v1, jwt.{token('42', now_s=time.time())}\r\n"
        socket, stream = await join(house, more=jwt), await opened(house, bearer("42"))
        assert house.gateway.hub.users == {"42": 2}
        await refused(house, b"too many connections of this user", bearer("42"))
        third = await Raw.open(house.port, more=jwt)
        assert await third.closed() == 4504
        third.leave()
        other = await opened(house, bearer("43"))
        await gone(house, stream, 2)
        stream = await opened(house, bearer("42"))
        await gone(house, other, 2)
        await gone(house, stream, 1)
        await gone(house, socket, 0)
        assert not house.gateway.hub.users


async def test_streams_that_come_too_fast_are_refused() -> None:
    clock = ManualClock()
    async with open_house(admission=AdmissionSettings(connects_per_s=1), clock=clock) as house:
        await opened(house)
        await refused(house, b"too many new connections from this address")
        await clock.advance(1.0)
        await opened(house)


async def test_behind_a_trusted_proxy_clients_are_counted_one_by_one() -> None:
    settings = AdmissionSettings(per_address_max=1, trusted_proxies=("127.0.0.1",))
    async with open_house(admission=settings) as house:
        for last in (1, 2):
            await opened(house, f"X-Forwarded-For: 203.0.113.{last}\r\n")
        await refused(house, b"from this address", "X-Forwarded-For: 198.51.100.1, 203.0.113.2\r\n")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_one_that_never_begins_takes_no_place(method: str) -> None:
    async with open_house(admission=AdmissionSettings(per_address_max=1)) as house:
        taken: Any = None
        for _ in range(3):
            raw = await ask(house, method=method)
            if method == "GET":
                taken, raw = raw, await ask(house)
                assert b" 429 " in raw.head
                await gone(house, taken, 0)
            assert house.gateway.admission.inside == 0
            raw.leave()
