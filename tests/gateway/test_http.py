"""HTTP beside the WebSocket: routes, problems, bounds, headers."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from litestar import get

from headrace.gateway.transports.http import READ_AHEAD
from tests.gateway.running_gateway import Raw, RunningGateway, join, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(demo=True) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as client:
        yield client


def is_problem(response: httpx.Response, status: int) -> bool:
    body = response.json()
    return (
        response.status_code == status == body["status"]
        and response.headers["content-type"] == "application/problem+json"
        and body["type"] == "about:blank"
        and "title" in body
    )


async def test_a_server_without_its_source_is_live_and_not_ready(
    running: RunningGateway, http: httpx.AsyncClient
) -> None:
    assert (await http.get("/health/live")).json() == {"status": "live"}
    running.health.report("source", ready=False, detail="connecting")
    response = await http.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["status"] == "not ready"
    shown = response.json()["components"]["source"]
    since = shown.pop("since")
    assert shown == {
        "ready": False,
        "required": True,
        "detail": "connecting",
        "last_error": "connecting",
        "last_error_at": since,
    }
    running.health.report("source", ready=False, detail="switched off", required=False)
    assert (await http.get("/health/ready")).status_code == 200
    running.health.forget("source")


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics")
    assert (
        response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    )  # Prometheus refuses it doubled
    assert "headrace_gateway_connections" in response.text


async def test_info_names_server_protocol_and_demo(http: httpx.AsyncClient) -> None:
    info = (await http.get("/api/info")).json()
    assert (info["server_id"], info["protocol"], info["demo"]) == ("server-1", "stream.v1", True)


async def test_connections_are_counted_without_names(running: RunningGateway, http: httpx.AsyncClient) -> None:
    raws = [await join(running, f"/ws?user_id=secret{n % 2}&subscriptions=token_updates") for n in range(3)]
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
    await running.clients(0)
    assert (await http.get("/api/ws/connections")).json()["active_users"] == 0


async def test_topics_are_listed_by_name(running: RunningGateway, http: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await running.publish(f"trades:list_{name}", 2)
    listed = (await http.get("/api/topics", params={"prefix": "trades:list_", "limit": 2})).json()
    assert listed["total"] == 3
    assert listed["topics"] == [
        {"topic": f"trades:list_{name}", "epoch": "g", "offset": "2", "subscribers": 0} for name in ("a", "b")
    ]


async def test_history_is_paged_forwards_and_backwards(running: RunningGateway, http: httpx.AsyncClient) -> None:
    await running.publish("trades:pages", 5)
    page = (await http.get("/api/topics/trades:pages/history", params={"epoch": "g", "offset": "2", "limit": 2})).json()
    assert (page["topic"], page["epoch"], page["offset"]) == ("trades:pages", "g", "5")
    assert [item["offset"] for item in page["items"]] == ["3", "4"]
    back = (await http.get("/api/topics/trades:pages/history?reverse=true&limit=1")).json()
    assert [item["offset"] for item in back["items"]] == ["5"]


async def test_topics_are_listed_page_by_page(running: RunningGateway, http: httpx.AsyncClient) -> None:
    names = [f"trades:page_{n:02}" for n in range(25)]
    for name in names:
        await running.publish(name)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        query = {"prefix": "trades:page_", "limit": "7", "after": after}
        page = (await http.get("/api/topics", params=query)).json()
        assert page["total"] == 25
        found += [entry["topic"] for entry in page["topics"]]
        after = page["next"]
    assert found == names


async def test_topics_of_users_are_named_to_nobody(running: RunningGateway, http: httpx.AsyncClient) -> None:
    await running.publish("orders:ann")
    await running.publish("order:77")
    listed = (await http.get("/api/topics", params={"limit": 1000})).text
    raw = await join(running, "/ws?subscriptions=orders:ann")
    assert (await raw.json())["type"] == "subscribed"
    assert "ann" not in listed + (await http.get("/api/ws/connections")).text
    assert "order:" not in listed
    raw.leave()
    await running.clients(0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_history_is_read_to_its_end_page_by_page(
    running: RunningGateway, http: httpx.AsyncClient, limit: int, reverse: bool
) -> None:
    topic = f"trades:all_{limit}_{int(reverse)}"
    await running.publish(topic, 10)
    found: list[int] = []
    query: dict[str, str | int] = {"limit": limit, "reverse": str(reverse).lower()}
    while True:
        page = (await http.get(f"/api/topics/{topic}/history", params=query)).json()
        found += [int(item["offset"]) for item in page["items"]]
        if page["next"] is None:
            break
        query |= page["next"]
    assert found == list(range(10, 0, -1) if reverse else range(1, 11))


async def test_pages_that_would_be_too_long_have_fewer_messages() -> None:
    async with (
        run_gateway() as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http,
    ):
        await running.publish("slots", 40, 60_000)
        page = (await http.get("/api/topics/slots/history?limit=1000")).json()
        assert len(page["items"]) < 40
        assert page["next"] == {"epoch": "g", "offset": page["items"][-1]["offset"]}
        back = (await http.get("/api/topics/slots/history?limit=1000&reverse=true")).json()
        assert back["next"] == {"epoch": "g", "offset": back["items"][-1]["offset"]}


async def test_an_unrecoverable_position_is_shown_with_the_newest() -> None:
    async with (
        run_gateway(history_size=3) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http,
    ):
        await running.publish("slots", 9)
        response = await http.get("/api/topics/slots/history?epoch=g&offset=2")
        assert is_problem(response, 410)
        body = response.json()
        assert (body["topic"], body["given"]) == ("slots", {"epoch": "g", "offset": "2"})
        assert body["newest"] == {"epoch": "g", "offset": "9"}


@pytest.mark.parametrize(
    ("query", "name", "given"),
    [
        ("limit=abc", "limit", "abc"),
        ("limit=1001", "limit", "1001"),
        ("limit=" + "9" * 5000, "limit", "9" * 128),
        ("epoch=g&offset=1x", "offset", "1x"),
        ("epoch=g&offset=%D9%A3", "offset", "٣"),
        ("offset=1", "epoch", "1"),
        ("epoch=g&offset=18446744073709551616", "offset", "18446744073709551616"),
        ("epoch=&offset=1", "epoch", ""),
        ("reverse=perhaps", "reverse", "perhaps"),
        ("limit=%00%0d%0aX:1", "limit", "\x00\r\nX:1"),
    ],
)
async def test_a_wrong_parameter_is_named(http: httpx.AsyncClient, query: str, name: str, given: str) -> None:
    for path in ("history", "sse"):
        if path == "sse" and name in ("limit", "reverse"):
            continue
        response = await http.get(f"/api/topics/slots/{path}?{query}")
        assert is_problem(response, 400)
        (wrong,) = response.json()["errors"]
        assert (wrong["name"], wrong["given"]) == (name, given)


TRICKS = (
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..",
    "trades%3Apump%00",
    "%00",
    "trades:pump%0d%0aX: 1",
    "trades:%70ump%2fhistory",
    "trades%253Apump",
    "trades:pump;x=1",
    "trades:pump%20",
    "TRADES:pump",
    "trades:\u0440ump",
    "trades:pump\u200b",
    "%ff%fe",
    "%c0%ae",
    "trades:" + "a" * 200,
    "a" * 12_000,
    "trades:*",
    "{topic}",
    "user:42",
    "$share",
)


@pytest.mark.parametrize("name", TRICKS, ids=lambda name: name[:20].encode("unicode_escape").decode())
@pytest.mark.parametrize("what", ["history", "sse"])
async def test_topic_names_with_tricks_name_nothing(http: httpx.AsyncClient, name: str, what: str) -> None:
    response = await http.get(f"/api/topics/{name}/{what}")
    assert is_problem(response, 404)
    assert len(response.content) < 600
    assert "x-1" not in response.headers


async def test_a_name_may_be_percent_encoded(running: RunningGateway, http: httpx.AsyncClient) -> None:
    await running.publish("trades:pump")
    assert (await http.get("/api/topics/%74rades%3apump/history")).json()["topic"] == "trades:pump"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /api/topics/\xff\xfe/history HTTP/1.1", 400),
        (b"GET /api/topics/%zz/history HTTP/1.1", 404),
        (b"GET /api/topics/slots/history?" + b"&".join(b"a%d=1" % n for n in range(1500)) + b" HTTP/1.1", 200),
        (b"GET /api/topics/slots/history?" + b"x" * 17_000 + b" HTTP/1.1", 431),
        (b"GET /api/topics/slots/history?limit=1&limit=2 HTTP/1.1", 400),
        (b"GET //api/topics HTTP/1.1", 200),
        (b"GET /api/topics/ HTTP/1.1", 200),
        (b"DELETE /api/topics/slots/history HTTP/1.1", 405),
        (b"POST /api/topics/slots/sse HTTP/1.1", 405),
        (b"PUT /api/ws/connections HTTP/1.1", 405),
        (b"OPTIONS /api/topics HTTP/1.1", 204),
        (b"TRACE /api/topics HTTP/1.1", 405),
        (b"BREW /api/topics HTTP/1.1", 501),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_target_or_method_with_tricks_gets_its_status(
    running: RunningGateway, line: bytes, status: int
) -> None:
    raw = await Raw.connect(running.port)
    raw.send(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await raw.read_head()).startswith(b"HTTP/1.1 %d " % status), raw.head
    raw.leave()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/schema/_", 404),
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


async def test_a_wrong_method_gets_405_and_a_large_body_413(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/topics")
    assert is_problem(response, 405)
    assert response.headers["allow"]
    assert is_problem(await http.post("/api/topics", content=b"x" * 70_000), 413)


async def test_a_defect_is_answered_without_details(
    http: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    @get("/broken", sync_to_thread=False)
    def broken() -> None:
        raise RuntimeError("the secret is 42")

    async with run_gateway(handlers=(broken,)) as running:
        response = await http.get(f"http://127.0.0.1:{running.port}/broken")
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


async def test_a_request_with_two_hosts_is_refused(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert b" 400 " in await raw.read_head()
    raw.leave()


async def test_every_answer_has_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/", "/nope", "/metrics", "/dashboard.js"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["vary"] == "origin"
        assert headers["cache-control"] == ("no-cache" if path in ("/", "/dashboard.js") else "no-store")
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
async def test_a_malformed_request_gets_a_problem_with_its_status(
    running: RunningGateway, data: bytes, status: int
) -> None:
    raw = await Raw.connect(running.port)
    raw.send(data)
    assert (await raw.read_head()).startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(await raw.reader.read())["status"] == status
    raw.leave()


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /ws HT", b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 9\r\n\r\nx"],
)
async def test_a_late_request_is_refused(start: bytes) -> None:
    async with run_gateway(request_s=0.1) as running:
        raw = await Raw.connect(running.port)
        raw.send(start)
        async with asyncio.timeout(30):
            answer = await raw.reader.read()
        assert b" 408 " in answer if start else not answer
        raw.leave()


async def test_connections_that_never_become_anything_are_limited() -> None:
    async with run_gateway(http_connections_max=3) as running:
        raws = [await Raw.connect(running.port) for _ in range(4)]
        assert b" 503 " in await raws[3].read_head()
        for raw in raws:
            raw.leave()


async def test_an_unread_answer_stops_the_reading_of_requests(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.reader._transport.pause_reading()  # type: ignore[attr-defined]  # the test's own client
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100_000)
    async with asyncio.timeout(30):
        while not running.gateway.keeper.stuck:  # noqa: ASYNC110  (the socket is full: nobody is told)
            await asyncio.sleep(0.001)
    (waiting,) = [len(connection._inbound) for connection in running.gateway._http.connections if connection._exchange]
    assert waiting <= READ_AHEAD + 262_144  # and what one read gives
    raw.leave()


async def test_pipelined_requests_are_all_answered(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    for _ in range(100):
        assert b" 200 " in await raw.read_head()
        await raw.reader.readexactly(len(b'{"status":"live"}'))
    raw.leave()
