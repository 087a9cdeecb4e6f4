"""How fast HTTP requests may come: for whom each counts, what is not counted, and what is said about one too many."""

from typing import Any, Final

import httpx
import pytest

from headrace.gateway.door.request_rates import Asker, RequestRates
from headrace.gateway.problems import Refused
from headrace.gateway.settings import AdmissionSettings
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

ANN: Final = Asker("user", "ann")
OPEN: Final = "/api/info"


def bearer(sub: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sub, now_s=0)}"}


def web(running: RunningGateway, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", headers=headers, verify=False)


def slow(per_s: int, **more: Any) -> dict[str, Any]:
    """A running whose clock stands, so that nobody's bucket fills by itself."""
    return {"admission": AdmissionSettings(requests_per_s=per_s, **more), "clock": ManualClock(0)}


async def statuses(http: httpx.AsyncClient, path: str, count: int, **more: Any) -> list[int]:
    return [(await http.get(path, **more)).status_code for _ in range(count)]


async def advance(running: RunningGateway, seconds: float) -> None:
    clock = running.gateway.keeper.clock
    assert isinstance(clock, ManualClock)
    await clock.advance(seconds)


async def test_one_request_too_many_is_refused_with_retry_after() -> None:
    async with run_gateway(**slow(2)) as running, web(running) as http:
        assert await statuses(http, OPEN, 2) == [200, 200]
        answer = await http.get(OPEN)
        assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["detail"] == "too many requests from this address"
        assert running.metric("gateway_refused_total", status="429") == 1
        await advance(running, 0.5)
        assert await statuses(http, OPEN, 2) == [200, 429]


async def test_unknown_paths_count_and_probes_do_not() -> None:
    async with run_gateway(**slow(3)) as running, web(running) as http:
        assert await statuses(http, "/health/live", 5) == [200] * 5
        assert await statuses(http, "/nowhere", 2) == [404, 404]
        assert (await http.post(OPEN)).status_code == 405
        assert await statuses(http, "/nowhere", 1) == [429]
        assert await statuses(http, "/health/nowhere", 1) == [429]
        assert await statuses(http, "/health/ready", 5) == [200] * 5


async def test_streams_are_counted_once_as_what_they_are() -> None:
    async with run_gateway(**slow(1)) as running, web(running) as http:
        for _ in range(3):
            await join(running)
            raw = await Raw.connect(running.port)
            raw.send(b"GET /api/topics/slots/sse HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await raw.read_head()
        assert await statuses(http, "/api/topics/nonsense/sse", 2) == [404, 429]
        raw = await Raw.connect(running.port)
        raw.send(b"GET /api/topics/slots/sse HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 429 " in await raw.read_head()


async def test_users_of_one_address_do_not_share_a_rate() -> None:
    async with run_gateway(**slow(4), auth=HS256) as running, web(running) as http:
        for user in ("ann", "bob"):
            assert await statuses(http, OPEN, 5, headers=bearer(user)) == [200, 200, 200, 200, 429]
        told = await http.get(OPEN, headers=bearer("ann"))
        assert told.json()["detail"] == "too many requests of this user"
        assert await statuses(http, OPEN, 2) == [401, 429], "only what was beyond their rates was left to the address"


async def test_wrong_credentials_count_for_their_address() -> None:
    async with run_gateway(**slow(2), auth=HS256) as running, web(running) as http:
        forged = {"Authorization": f"Bearer {token('ann', now_s=0, key='x' * 32)}"}
        assert await statuses(http, OPEN, 4, headers=forged) == [401, 401, 429, 429]
        assert await statuses(http, OPEN, 1, headers=bearer("ann")) == [429]
        assert running.metric("gateway_credentials_total", kind="token", outcome="bad_signature") == 2
        assert running.metric("gateway_credentials_total", kind="token", outcome="accepted") == 0


async def test_clients_behind_a_trusted_proxy_count_separately() -> None:
    async with run_gateway(**slow(1, trusted_proxies=("127.0.0.1",))) as running, web(running) as http:
        for client in ("203.0.113.1", "203.0.113.2"):
            assert await statuses(http, OPEN, 2, headers={"X-Forwarded-For": client}) == [200, 429]


async def test_pages_of_other_sites_may_read_when_to_come_back() -> None:
    async with run_gateway(**slow(1, origins=("https://app.example",))) as running:
        async with web(running, Origin="https://app.example") as http:
            assert await statuses(http, OPEN, 2) == [200, 429]
            answer = await http.get(OPEN)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-expose-headers"] == "retry-after"


async def test_the_rate_changes_while_it_runs_and_who_rests_is_forgotten() -> None:
    clock, per_s = ManualClock(0), 1
    rates = RequestRates(clock, lambda: per_s, Metrics().counter("refused", "", ("status",)))
    rates.take(ANN)
    with pytest.raises(Refused):
        rates.take(ANN)
    per_s = 2
    rates.take(ANN)
    rates.take(ANN)
    with pytest.raises(Refused):
        rates.take(ANN)
    rates.give_back(ANN)
    rates.take(ANN)
    for n in range(100):
        rates.take(Asker("address", f"192.0.2.{n}"))
    await clock.advance(1.0)
    rates.take(ANN)
    assert set(rates._buckets) == {ANN}
    rates.give_back(Asker("address", "192.0.2.1"))
