"""HTTP beside the WebSocket: routes, problems, bounds, headers."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from litestar import get

from tests.gateway.house import House, Raw, join, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house() -> AsyncIterator[House]:
    async with open_house(demo=True) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{house.port}") as client:
        yield client


def is_problem(response: httpx.Response, status: int) -> bool:
    body = response.json()
    return (
        response.status_code == status == body["status"]
        and response.headers["content-type"] == "application/problem+json"
        and body["type"] == "about:blank"
        and "title" in body
    )


async def test_liveness_and_readiness(house: House, http: httpx.AsyncClient) -> None:
    assert (await http.get("/health/live")).json() == {"status": "live"}
    house.health.report("source", ready=False, detail="connecting")
    response = await http.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["status"] == "not ready"
    assert response.json()["components"]["source"] == {"ready": False, "detail": "connecting"}
    house.health.report("source", ready=False, detail="switched off", required=False)
    assert (await http.get("/health/ready")).status_code == 200
    house.health.forget("source")


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics")
    assert (
        response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    )  # Prometheus refuses it doubled
    assert "headrace_gateway_connections" in response.text


async def test_info(http: httpx.AsyncClient) -> None:
    info = (await http.get("/api/info")).json()
    assert (info["server_id"], info["protocol"], info["demo"]) == ("server-1", "stream.v1", True)


async def test_connections_are_counted_without_names(house: House, http: httpx.AsyncClient) -> None:
    raws = [await join(house, f"/ws?user_id=secret{n % 2}&subscriptions=token_updates") for n in range(3)]
    for raw in raws:
        await raw.json()
    response = await http.get("/api/ws/connections")
    assert response.json() == {
        "total_connections": 3,
        "active_users": 2,
        "subscriptions": 3,
        "server_id": "server-1",
        "topics": {"token_updates": 3},
        "cluster": {"servers": 1, "total_connections": 3},
    }
    assert "secret" not in response.text
    for raw in raws:
        raw.leave()
    await house.clients(0)
    assert (await http.get("/api/ws/connections")).json()["active_users"] == 0


async def test_topics_are_listed_by_name(house: House, http: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await house.publish(f"trades:list_{name}", 2)
    listed = (await http.get("/api/topics", params={"prefix": "trades:list_", "limit": 2})).json()
    assert listed["total"] == 3
    assert listed["topics"] == [
        {"topic": f"trades:list_{name}", "epoch": "g", "offset": "2", "subscribers": 0} for name in ("a", "b")
    ]


async def test_history_pages(house: House, http: httpx.AsyncClient) -> None:
    await house.publish("trades:pages", 5)
    page = (await http.get("/api/topics/trades:pages/history", params={"epoch": "g", "offset": "2", "limit": 2})).json()
    assert (page["topic"], page["epoch"], page["offset"]) == ("trades:pages", "g", "5")
    assert [item["offset"] for item in page["items"]] == ["3", "4"]
    back = (await http.get("/api/topics/trades:pages/history?reverse=true&limit=1")).json()
    assert [item["offset"] for item in back["items"]] == ["5"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/api/topics/nonsense/history", 404),
        ("/api/topics/trades:*/history", 404),
        ("/api/topics/..%2f..%2fetc/history", 404),
        ("/api/topics/slots/history?epoch=x&offset=1", 410),
        ("/api/topics/slots/history?epoch=x", 400),
        ("/api/topics/slots/history?epoch=x&offset=-1", 400),
        ("/api/topics/slots/history?epoch=x&offset=99999999999999999999", 400),
        ("/api/topics/slots/history?limit=0", 400),
        ("/api/topics/slots/history?limit=abc", 400),
        ("/api/topics?limit=100000", 400),
        ("/ws", 426),
        ("/%00", 404),
    ],
)
async def test_errors_are_problems(http: httpx.AsyncClient, path: str, status: int) -> None:
    response = await http.get(path)
    assert is_problem(response, status), response.text
    assert "Error" not in response.text
    assert "headrace" not in response.text


async def test_wrong_methods_and_large_bodies(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/topics")
    assert is_problem(response, 405)
    assert response.headers["allow"]
    assert is_problem(await http.post("/api/topics", content=b"x" * 70_000), 413)


async def test_a_defect_says_nothing_of_itself(http: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    @get("/broken", sync_to_thread=False)
    def broken() -> None:
        raise RuntimeError("the secret is 42")

    async with open_house(handlers=(broken,)) as house:
        response = await http.get(f"http://127.0.0.1:{house.port}/broken")
        assert is_problem(response, 500)
        assert "42" not in response.text
    assert "request_failed" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/", "/health/live", "/metrics", "/nope"])
async def test_head_is_get_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    get_response, head_response = await http.get(path), await http.head(path)
    assert head_response.status_code == get_response.status_code
    assert head_response.content == b""
    if path != "/metrics":
        assert head_response.headers["content-length"] == get_response.headers["content-length"]


async def test_every_answer_has_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/", "/nope", "/metrics", "/dashboard.js"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers


async def test_the_dashboard_loads_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/", "/dashboard.css", "/dashboard.js", "/icon.svg"):
        text = (await http.get(path)).text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text.replace("https://solscan.io/tx/", "")
    assert " style=" not in page.text
    assert "<script>" not in page.text
    again = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000, 431),
    ],
)
async def test_bad_requests_on_the_wire(house: House, data: bytes, status: int) -> None:
    raw = await Raw.connect(house.port)
    raw.send(data)
    assert (await raw.read_head()).startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(await raw.reader.read())["status"] == status
    raw.leave()


@pytest.mark.parametrize(
    "start", [b"", b"GET /ws HT", b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx"]
)
async def test_a_request_must_come_in_time(start: bytes) -> None:
    async with open_house(request_s=0.1) as house:
        raw = await Raw.connect(house.port)
        raw.send(start)
        async with asyncio.timeout(5):
            answer = await raw.reader.read()
        assert answer == b"" or b" 408 " in answer or b" 405 " in answer
        raw.leave()


async def test_connections_that_never_become_anything_are_limited() -> None:
    async with open_house(http_connections_max=3) as house:
        raws = [await Raw.connect(house.port) for _ in range(4)]
        assert b" 503 " in await raws[3].read_head()
        for raw in raws:
            raw.leave()


CHUNK = b"ffff\r\n" + b"a" * 65_535 + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + CHUNK, 413),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n", 400),
    ],
)
async def test_an_answer_that_comes_after_a_refusal_is_dropped_in_silence(
    house: House, capsys: pytest.CaptureFixture[str], data: bytes, status: int
) -> None:
    raw = await Raw.connect(house.port)
    raw.send(data)
    assert b" %d " % status in await raw.read_head()
    async with asyncio.timeout(5):
        await raw.reader.read()
    async with httpx.AsyncClient() as http:  # one more turn for whatever was still to be answered
        await http.get(f"http://127.0.0.1:{house.port}/health/live")
    assert "Traceback" not in capsys.readouterr().err
    raw.leave()


async def test_pipelined_requests_are_all_answered(house: House) -> None:
    raw = await Raw.connect(house.port)
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    for _ in range(3):
        assert b" 200 " in await raw.read_head()
        await raw.reader.readexactly(len(b'{"status":"live"}'))
    raw.leave()
