"""Who may use which route: everything is closed but what says that it is open, and the answers say how to come in."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Final

import httpx
import msgspec
import pytest
import pytest_asyncio
from litestar import Request, get, post
from litestar.params import FromQuery, JSONBody

from headrace.gateway.routes import guards
from tests.gateway.issuer import AUDIENCE, HS256, issuer, jwk, rsa_key, token
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN: Final = ("/", "/dashboard.css", "/client/headrace.js", "/health/live", "/health/ready", "/metrics", "/schema")


@get("/api/who", sync_to_thread=False)
def who(request: Request[Any, Any, Any], user: FromQuery[str | None] = None) -> dict[str, str | None]:
    """A route that somebody adds without a thought of who may use it."""
    identity = guards.identity_of(request)
    return {"subject": identity and identity.subject, "acting": guards.acting_user(request, user)}


@get("/api/admins", guards=[guards.admin_only], sync_to_thread=False)
def admins() -> str:
    return "hello, admin"


@post("/api/publish", guards=[guards.admin_only], sync_to_thread=False)
def publish(data: JSONBody[dict[str, int]]) -> str:
    return "published"


@get("/api/by-ticket", opt=guards.BY_TICKET, sync_to_thread=False)
def by_ticket(request: Request[Any, Any, Any]) -> str:
    identity = guards.identity_of(request)
    return identity.subject if identity else ""


HANDLERS: Final = (who, admins, publish, by_ticket)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(auth=HS256, handlers=HANDLERS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(running: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", trust_env=False, verify=False) as client:
        yield client


def bearer(running: RunningGateway, **more: Any) -> dict[str, str]:
    text = token(**{"now_s": running.gateway.keeper.clock.wall_ns() / 1e9, **more})
    return {"Authorization": f"Bearer {text}"}


def is_refusal(response: httpx.Response, status: int, error: str = "") -> bool:
    challenge = response.headers.get("www-authenticate", "")
    return (
        (response.status_code, response.json()["status"]) == (status, status)
        and response.headers["content-type"] == "application/problem+json"
        and challenge.startswith('Bearer realm="headrace"')
        and (f'error="{error}"' in challenge if error else "error" not in challenge)
    )


@pytest.mark.parametrize("path", OPEN)
async def test_open_without_a_credential(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200
    assert (await http.get(path, headers={"Authorization": "Bearer nonsense"})).status_code == 200


async def test_every_other_route_is_closed(running: RunningGateway, http: httpx.AsyncClient) -> None:
    paths = (await http.get("/schema")).json()["paths"]
    closed = {(path, method) for path, methods in paths.items() for method in methods if path not in OPEN}
    assert {("/api/topics", "get"), ("/api/ws/tickets", "post"), ("/api/who", "get")} <= closed
    for path, method in closed:
        response = await http.request(method, path.format(topic="slots", mint="x"))
        assert is_refusal(response, 401), path
    assert (await http.get("/ws")).status_code == 426
    assert (await http.get("/nope")).status_code == 404


@pytest.mark.parametrize("path", ["//api/who", "/api//who", "/api/who/", "/%61pi/who", "/./api/who", "/x/../api/who"])
async def test_no_spelling_of_a_path_goes_around(running: RunningGateway, path: str) -> None:
    raw = await Raw.connect(running.port)
    raw.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = await raw.read_head()
    assert b" 401 " in head or b" 404 " in head, head
    assert b"subject" not in await raw.reader.read()
    raw.leave()


async def test_head_and_options_without_a_credential_show_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.head("/api/who")).status_code == 401
    assert (await http.options("/api/who")).status_code in (204, 401)


async def test_a_bearer_token_opens(running: RunningGateway, http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/who", headers=bearer(running))).json() == {"subject": "42", "acting": "42"}
    lower = {"authorization": bearer(running)["Authorization"].replace("Bearer", "bEARER")}
    assert (await http.get("/api/who", headers=lower)).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Token abc", "Bearerabc"])
async def test_a_request_without_a_credential_is_refused(http: httpx.AsyncClient, header: str) -> None:
    assert is_refusal(await http.get("/api/who", headers={"Authorization": header}), 401)


@pytest.mark.parametrize(
    "more",
    [
        {"key": "x" * 32},
        {"key": None, "algorithm": "none"},
        {"ttl_s": -10},
        {"nbf": 2**40},
        {"without": ("exp",)},
        {"pad": "x" * 8000},
    ],
)
async def test_bad_credentials_are_refused(
    running: RunningGateway, http: httpx.AsyncClient, more: dict[str, Any]
) -> None:
    response = await http.get("/api/who", headers=bearer(running, **more))
    assert is_refusal(response, 401, "invalid_token")
    assert response.json()["detail"] == ("token expired" if "ttl_s" in more else "bad credential")


async def test_a_token_that_is_not_yet_valid_is_to_be_shown_again(
    running: RunningGateway, http: httpx.AsyncClient
) -> None:
    nbf = running.gateway._clock.wall_ns() / 1e9 + 8
    for path in ("/api/who", "/api/topics/slots/sse"):
        response = await http.get(path, headers=bearer(running, nbf=nbf))
        assert (response.status_code, response.json()["detail"]) == (503, "token not valid yet")
        assert 1 <= int(response.headers["retry-after"]) <= 3


async def test_two_credentials_are_refused(running: RunningGateway, http: httpx.AsyncClient) -> None:
    twice = [("Authorization", bearer(running)["Authorization"])] * 2
    assert (await http.get("/api/who", headers=twice)).status_code == 400
    both = await http.get("/api/by-ticket?ticket=x", headers=bearer(running))
    assert both.status_code == 400


async def test_a_query_with_very_many_parameters_is_a_refusal_like_others(http: httpx.AsyncClient) -> None:
    many = "&".join(f"a{number}=1" for number in range(200))
    assert is_refusal(await http.get(f"/api/by-ticket?ticket=x&{many}"), 401, "invalid_token")


async def test_non_admins_are_refused(running: RunningGateway, http: httpx.AsyncClient) -> None:
    for path in ("/api/admins", "/api/ws/connections"):
        assert is_refusal(await http.get(path), 401)
        assert is_refusal(await http.get(path, headers=bearer(running)), 403, "insufficient_scope")
        assert is_refusal(await http.get(path, headers=bearer(running, admin="true")), 403, "insufficient_scope")
        assert (await http.get(path, headers=bearer(running, admin=True))).status_code == 200
    assert is_refusal(await http.post("/api/publish", content=b"not JSON"), 401)  # before the body is looked at


async def test_users_act_for_themselves(running: RunningGateway, http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/who?user=42", headers=bearer(running))).json()["acting"] == "42"
    assert is_refusal(await http.get("/api/who?user=43", headers=bearer(running)), 403, "insufficient_scope")


async def test_only_readable_topics_are_served(running: RunningGateway, http: httpx.AsyncClient) -> None:
    for topic in ("slots", "trades:pump", "orders:42", "orders:43", "user:42"):
        await running.publish(topic)
    headers = bearer(running, topics=["trades:*"])
    listed = (await http.get("/api/topics", headers=headers)).json()
    assert [entry["topic"] for entry in listed["topics"]] == ["orders:42", "trades:pump"]
    assert listed["total"] == 2
    for topic, status in (("trades:pump", 200), ("orders:42", 200), ("slots", 403), ("orders:43", 403), ("nope", 404)):
        assert (await http.get(f"/api/topics/{topic}/history", headers=headers)).status_code == status, topic


async def test_tickets_are_given_for_tokens(running: RunningGateway, http: httpx.AsyncClient) -> None:
    given = await http.post("/api/ws/tickets", headers=bearer(running, sub="7"))
    assert given.status_code == 201
    assert given.json()["expires_in_s"] == 30
    raw = await Raw.open(running.port, f"/ws?ticket={given.json()['ticket']}")
    assert (await raw.json())["data"]["user_id"] == "7"
    raw.leave()
    for _ in range(32):
        last = (await http.post("/api/ws/tickets", headers=bearer(running, sub="7"))).json()["ticket"]
    full = await http.post("/api/ws/tickets", headers=bearer(running, sub="7"))
    assert (full.status_code, full.headers["retry-after"]) == (429, "30")
    assert (await http.post("/api/ws/tickets", headers=bearer(running, sub="8"))).status_code == 201
    assert (await http.get(f"/api/by-ticket?ticket={last}")).text == "7"
    assert is_refusal(await http.get(f"/api/by-ticket?ticket={last}"), 401, "invalid_token")
    assert is_refusal(await http.get(f"/api/who?ticket={last}"), 401)


async def test_metrics_are_for_admins_where_set() -> None:
    closed = msgspec.structs.replace(HS256, metrics_open=False)
    async with run_gateway(auth=closed) as running, httpx.AsyncClient(trust_env=False, verify=False) as http:
        url = f"http://127.0.0.1:{running.port}/metrics"
        statuses = [
            (await http.get(url, headers=headers)).status_code
            for headers in ({}, bearer(running), bearer(running, admin=True))
        ]
        assert statuses == [401, 403, 200]


async def test_an_issuer_that_is_away_is_no_fault_of_the_caller() -> None:
    async with issuer() as served:
        served.say(b"", "503 Busy")
        auth = msgspec.structs.replace(HS256, mode="rs256", jwks_url=served.url, jwt_audience=AUDIENCE)
        async with (
            run_gateway(auth=auth, handlers=HANDLERS) as running,
            httpx.AsyncClient(trust_env=False, verify=False) as http,
        ):
            url = f"http://127.0.0.1:{running.port}/api/who"
            more = {"algorithm": "RS256", "key": rsa_key("one"), "header": {"kid": "k1"}, "aud": AUDIENCE}
            away = await http.get(url, headers=bearer(running, **more))
            assert (away.status_code, away.json()["detail"]) == (503, "temporarily unavailable")
            assert 1 <= int(away.headers["retry-after"]) <= 11
            assert (await http.get(f"http://127.0.0.1:{running.port}/health/live")).status_code == 200
            served.publish(jwk(rsa_key("one"), "k1"))


async def test_with_authentication_off_every_route_is_open() -> None:
    async with run_gateway(handlers=HANDLERS) as running, httpx.AsyncClient(trust_env=False, verify=False) as http:
        url = f"http://127.0.0.1:{running.port}"
        assert (await http.get(f"{url}/api/who?user=7")).json() == {"subject": None, "acting": "7"}
        assert (await http.get(f"{url}/api/admins")).status_code == 200
        assert (await http.post(f"{url}/api/ws/tickets")).status_code == HTTPStatus.NOT_FOUND


async def test_event_streams_need_a_credential_and_end_with_it() -> None:
    quick = msgspec.structs.replace(HS256, leeway_s=0, grace_s=0.01)
    async with run_gateway(auth=quick) as running, httpx.AsyncClient(trust_env=False, verify=False) as http:
        url = f"http://127.0.0.1:{running.port}/api/topics/slots/sse"
        assert (await http.get(url)).status_code == 401
        assert (await http.get(url, headers=bearer(running, topics=["trades:*"]))).status_code == 403
        given = await http.post(f"http://127.0.0.1:{running.port}/api/ws/tickets", headers=bearer(running, ttl_s=1))
        told = await http.get(f"{url}?ticket={given.json()['ticket']}")
        assert told.status_code == 200
        assert "event: subscribed" in told.text
        assert '"code":4005' in told.text
