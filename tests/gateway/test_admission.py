"""Who comes in and who does not: addresses, proxies, origins, users, rates; and that each is told why."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from headrace.gateway.door.admission import Admission
from headrace.gateway.problems import Refused
from headrace.gateway.settings import AdmissionSettings
from headrace.model.errors import ConfigError
from headrace.runtime.clock import SystemClock
from tests.gateway.running_gateway import TEXT, UPGRADE, Raw, RunningGateway, frame, join, run_gateway

ME = "127.0.0.1"


class Held(SystemClock):
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def admission(**settings: object) -> tuple[Admission, Held]:
    clock = Held()
    return Admission(clock, AdmissionSettings(**settings)), clock  # type: ignore[arg-type]


async def refused(running: RunningGateway, status: int, more: str = "") -> bytes:
    """Try to connect, be refused; returns the answer's head."""
    raw = await Raw.open(running.port, more=more)
    assert b" %d " % status in raw.head, raw.head
    assert b"application/problem+json" in raw.head
    assert running.metric("gateway_refused_total", status=str(status)) >= 1
    return raw.head


def web(running: RunningGateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{ME}:{running.port}", verify=False)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["10.1.1.1"], "203.0.113.7"),  # not a proxy of ours: it may say what it likes
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),  # the left one is the client's own invention
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, nonsense"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("2001:db8:0:1:aaaa::1", [], "2001:db8:0:1::/64"),
        ("2001:db8:0:1:bbbb::2", [], "2001:db8:0:1::/64"),
        ("", ["203.0.113.7"], "local"),
    ],
)
def test_the_address_for_limits_is_the_last_untrusted_one(peer: str, forwarded: list[str], expected: str) -> None:
    door, _ = admission(trusted_proxies=("10.0.0.0/8",))
    assert door.address_of(peer, forwarded) == expected


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://stream.example", "stream.example", True),
        ("https://stream.example:8443", "stream.example:8443", True),
        ("https://app.example", "stream.example", True),
        ("HTTPS://App.Example", "stream.example", True),
        ("http://app.example", "stream.example", False),
        ("https://app.example.evil.example", "stream.example", False),
        ("https://evil.example", "stream.example", False),
        ("https://stream.example.evil.example", "stream.example", False),
        ("http://localhost:3000", "stream.example", False),
        ("null", "stream.example", False),
        ("", "", False),
        ("http://[", "stream.example", False),
        ("file://stream.example", "stream.example", False),
    ],
)
def test_which_pages_may_connect(origin: str, host: str, allowed: bool) -> None:
    door, _ = admission(origins=("https://app.example/",))
    assert door.allows(origin, host) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1:5500", True),
        ("http://[::1]:5500", True),
        ("http://localhost.evil.example", False),
        ("https://evil.example", False),
        ("null", False),
    ],
)
def test_a_local_server_admits_pages_of_its_machine(origin: str, allowed: bool) -> None:
    door, _ = admission()
    door.local = True
    assert door.allows(origin, "127.0.0.1:8080") is allowed


def test_every_page_where_the_operator_says_so_and_files_in_a_demo() -> None:
    assert admission(origins=("*",))[0].allows("null", "stream.example")
    assert Admission(Held(), demo=True).allows("null", "127.0.0.1:8080")


APP = "capacitor://localhost"
EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        (APP, APP, True),
        (APP, "capacitor://localhost:80", False),
        (APP, "http://localhost", False),
        (APP, "ionic://localhost", False),
        ("ionic://localhost", "ionic://localhost", True),
        ("tauri://localhost", "tauri://localhost", True),
        ("app://-", "app://-", True),
        ("app://.", "app://.", True),
        (EXTENSION, EXTENSION, True),
        (EXTENSION, EXTENSION.replace("a", "b"), False),
        (
            "moz-extension://0f0e0d0c-1111-2222-3333-444455556666",
            "moz-extension://0f0e0d0c-1111-2222-3333-444455556666",
            True,
        ),
        ("safari-web-extension://ABCD-EF", "safari-web-extension://abcd-ef", True),
        ("vscode-webview://1ab2", "vscode-webview://1ab2", True),
        ("vscode-webview://1ab2", "vscode-webview://1ab3", False),
        ("null", "null", True),
        ("file://", "null", True),
        ("file://", "file://", True),
        ("null", "file://", True),
        ("null", APP, False),
        (APP, "null", False),
        ("https://app.example.com:443", "https://app.example.com", True),
        ("https://app.example.com", "https://app.example.com:443", True),
        ("http://app.example.com:80", "http://app.example.com", True),
        ("https://app.example.com:80", "https://app.example.com", False),
        ("https://app.example.com:443", "http://app.example.com", False),
        ("http://app.example.com", "http://app.example.com:443", False),
        ("https://app.example.com:8443", "https://app.example.com:8443", True),
        ("https://app.example.com:8443", "https://app.example.com", False),
        ("https://*.preview.example.com", "https://a.preview.example.com", True),
        ("https://*.preview.example.com", "https://A-1.Preview.example.com:443", True),
        ("https://*.preview.example.com", "https://preview.example.com", False),
        ("https://*.preview.example.com", "https://.preview.example.com", False),
        ("https://*.preview.example.com", "https://a.b.preview.example.com", False),
        ("https://*.preview.example.com", "https://apreview.example.com", False),
        ("https://*.preview.example.com", "https://a.preview.example.com.evil.example", False),
        ("https://*.preview.example.com", "https://a.preview.example.com:8443", False),
        ("https://*.preview.example.com", "http://a.preview.example.com", False),
        ("https://*.preview.example.com", "https://*.preview.example.com", False),
        ("https://*.preview.example.com", "https://evil.example#.preview.example.com", False),
        ("https://*.preview.example.com", "https://evil@a.preview.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("http://*.localhost:3000", "http://a.localhost:3000", True),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example", True),
        ("https://B\u00dcCHER.example", "https://xn--bcher-kva.example", True),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", True),
        ("http://[2001:DB8:0::1]:80", "http://[2001:db8::1]", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
        ("https://app.example.com", "https://app.example.com/", False),
        ("https://app.example.com", "https://app.example.com/x", False),
        ("https://app.example.com", "https://app.example.com https://evil.example", False),
        ("https://app.example.com", "https://app.example.com:99999", False),
    ],
)
def test_which_pages_a_setting_lets_in(setting: str, origin: str, allowed: bool) -> None:
    door, _ = admission(origins=(setting,))
    assert door.allows(origin, "stream.example") is allowed


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://app.example.com", "app.example.com:443", True),
        ("https://app.example.com:443", "app.example.com", True),
        ("https://app.example.com", "APP.example.com", True),
        ("http://app.example.com", "app.example.com:80", True),
        ("http://app.example.com:80", "app.example.com", True),
        ("https://app.example.com", "app.example.com:80", False),
        ("http://app.example.com", "app.example.com:443", False),
        ("https://app.example.com:8443", "app.example.com:8443", True),
        ("https://app.example.com:8443", "app.example.com", False),
        ("https://app.example.com", "app.example.com:8443", False),
        ("http://[2001:db8::1]", "[2001:DB8:0:0::1]:80", True),
        ("http://[2001:db8::1]:8080", "[2001:db8::1]", False),
        ("http://192.0.2.1:8080", "192.0.2.1:8080", True),
        ("capacitor://app.example.com", "app.example.com", False),
        ("https://app.example.com", "app.example.com:", False),
        ("null", "null", False),
    ],
)
def test_which_pages_are_of_the_servers_own_site(origin: str, host: str, same: bool) -> None:
    door, _ = admission()
    assert door.allows(origin, host) is same


async def test_browsers_leave_a_default_port_out(house_of_a_proxy: RunningGateway) -> None:
    """The handshake itself, with the headers of a browser behind a proxy that writes the port into Host."""
    running = house_of_a_proxy
    for host, origin, status in (
        ("app.example.com:443", "https://app.example.com", b" 101 "),
        ("app.example.com", "https://app.example.com:443", b" 101 "),
        ("app.example.com:8443", "https://app.example.com", b" 403 "),
    ):
        raw = await Raw.connect(running.port)
        asked = UPGRADE.format(path="/ws", more=f"Origin: {origin}\r\n").replace("Host: test", f"Host: {host}")
        raw.send(asked.encode())
        assert status in await raw.read_head(), (host, origin)
        raw.leave()


@pytest_asyncio.fixture
async def house_of_a_proxy() -> AsyncIterator[RunningGateway]:
    async with run_gateway(admission=AdmissionSettings(trusted_proxies=(ME,))) as running:
        yield running


@pytest.mark.parametrize(
    "origins",
    [
        ("app.example",),
        ("https://app.example/path",),
        ("https://*.example",),
        ("",),
        ("https://",),
        ("https://*",),
        ("https://*.com:443",),
        ("https://a.*.example.com",),
        ("https://*a.example.com",),
        ("https://*.*.example.com",),
        ("https://*.10.0.0.1",),
        ("chrome-extension://*",),
        ("capacitor://*.example.com",),
        ("capacitor://",),
        ("wss://app.example.com",),
        ("htps://app.example.com",),
        ("httpss://app.example.com",),
        ("javascript:alert(1)",),
        ("https://user@app.example.com",),
        ("https://app.example.com?x",),
        ("https://app.example.com:99999",),
        ("https://app.example.com:x",),
        ("https://[::1",),
        ("https://[zz]",),
        ("*.example.com",),
        ("https://a b.example",),
    ],
)
def test_origins_that_mean_nothing_are_refused(origins: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="ALLOWED_ORIGINS"):
        admission(origins=origins)


@pytest.mark.parametrize(
    ("setting", "peer", "trusted"),
    [
        ("10.0.0.1", "10.0.0.1", True), ("10.0.0.0/8", "10.255.0.1", True), ("10.0.0.0/255.0.0.0", "10.1.1.1", True),
        ("::1", "::1", True), ("[::1]", "::1", True), ("2001:db8::/32", "2001:db8:1::1", True),
        ("::ffff:10.0.0.0/104", "10.1.1.1", True), ("::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True), ("fe80::/10", "fe80::1%eth0", True), ("0.0.0.0/0", "203.0.113.1", True),
        ("0.0.0.0/0", "2001:db8::1", False), ("10.0.0.0/8", "11.0.0.1", False),
    ],
)  # fmt: skip
def test_which_peers_are_trusted_proxies(setting: str, peer: str, trusted: bool) -> None:
    door, _ = admission(trusted_proxies=(setting,))
    assert door.is_proxy(peer) is trusted


@pytest.mark.parametrize("setting", ["", "localhost", "10.0.0", "10.0.0.1/8", "10.0.0.1:8080", "*", "[::1]:80"])
def test_a_malformed_proxy_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="TRUSTED_PROXIES") as refused:
        admission(trusted_proxies=(setting,))
    assert ("lies in the network 10.0.0.0/8" in str(refused.value)) is (setting == "10.0.0.1/8")


def test_proxies_that_mean_nothing_are_refused_and_change_nothing() -> None:
    door, _ = admission(origins=("https://app.example",))
    with pytest.raises(ConfigError, match="TRUSTED_PROXIES"):
        door.apply(AdmissionSettings(trusted_proxies=("10.0.0.1/8",)))
    assert door.allows("https://app.example", "stream.example")


def test_new_connections_come_at_a_rate_and_addresses_are_forgotten() -> None:
    door, clock = admission(connects_per_s=2)
    for _ in range(2):
        door.enter("a")
    with pytest.raises(Refused) as told:
        door.enter("a")
    assert (told.value.status, told.value.headers) == (429, {"Retry-After": "1"})
    door.enter("b")
    clock.now_s += 0.5
    door.enter("a")
    for address in ("a", "a", "a", "b"):
        door.leave(address)
    entered = sum(comes_in(door, clock) for _ in range(110))  # within a second: no fresh allowance by asking again
    assert entered == 2
    clock.now_s += 1.1
    door.enter("c")
    assert set(door._visitors) == {"c"}


def test_a_changed_rate_applies_to_known_addresses() -> None:
    door, clock = admission(connects_per_s=1)
    door.enter("a")
    with pytest.raises(Refused):
        door.enter("a")
    door.apply(AdmissionSettings(connects_per_s=100))
    clock.now_s += 0.1
    for _ in range(10):
        door.enter("a")


def comes_in(door: Admission, clock: Held) -> bool:
    """Return whether "a" gets in, ten milliseconds later, to leave at once."""
    clock.now_s += 0.01
    try:
        door.enter("a")
    except Refused:
        return False
    door.leave("a")
    return True


async def test_one_address_has_a_limit_of_connections() -> None:
    async with run_gateway(admission=AdmissionSettings(per_address_max=2)) as running:
        first, _second = await join(running), await join(running)
        assert b"retry-after: 60" in (await refused(running, 429)).lower()
        first.leave()
        await running.clients(1)
        await join(running)


async def test_connections_behind_a_trusted_proxy_count_separately() -> None:
    settings = AdmissionSettings(per_address_max=1, trusted_proxies=(ME,))
    async with run_gateway(admission=settings) as running:
        await join(running, more="X-Forwarded-For: 203.0.113.1\r\n")
        await join(running, more="X-Forwarded-For: 203.0.113.2\r\n")
        await refused(running, 429, "X-Forwarded-For: 203.0.113.2\r\n")


async def test_one_user_has_a_limit() -> None:
    async with run_gateway(admission=AdmissionSettings(per_user_max=1)) as running:
        await join(running, "/ws?user_id=42")
        await join(running, "/ws?user_id=43")
        await join(running)
        raw = await Raw.open(running.port, "/ws?user_id=42")
        assert await raw.closed() == 4504


async def test_closed_clients_that_stay_are_bounded() -> None:
    async with run_gateway(connections_max=1, http_connections_max=2, close_s=60) as running:
        await join(running)
        for _ in range(2):
            assert await (await Raw.open(running.port)).closed() == 4504
        await refused(running, 503)


async def test_requests_that_never_end_are_bounded_for_one_address() -> None:
    async with run_gateway(admission=AdmissionSettings(http_per_address_max=2), request_s=60) as running:
        slow = [await Raw.connect(running.port) for _ in range(2)]
        for raw in slow:
            raw.send(b"GET /ws HTTP/1.1\r\nHost:")
        raw = await Raw.connect(running.port)
        assert b" 429 " in await raw.read_head()
        assert b"retry-after" in raw.head
        slow[0].leave()
        async with asyncio.timeout(30):
            while running.gateway.keeper.waiting[ME] > 2:  # noqa: ASYNC110  (a departure is told to nobody)
                await asyncio.sleep(0.001)
        raw.leave()
        async with asyncio.timeout(30):
            while running.gateway.keeper.waiting[ME] > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await join(running)


async def test_refused_clients_that_stay_are_dropped() -> None:
    async with run_gateway(admission=AdmissionSettings(http_per_address_max=2), close_s=60, request_s=60) as running:
        for _ in range(2):
            await Raw.connect(running.port)
        for _ in range(2):
            assert b" 429 " in await (await Raw.connect(running.port)).read_head()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await (await Raw.connect(running.port)).read_head()


async def test_a_handshake_byte_by_byte_is_cut_off_in_time() -> None:
    async with run_gateway(request_s=0.3) as running:
        raw = await Raw.connect(running.port)
        for byte in b"GET /ws HTTP/1.1\r\n":
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert b" 408 " in await raw.read_head()
        raw.leave()


async def test_a_page_of_another_site_gets_403_with_a_hint() -> None:
    async with run_gateway(admission=AdmissionSettings(origins=("https://app.example",))) as running:
        running.gateway.admission.local = False
        await refused(running, 403, "Origin: https://evil.example\r\n")
        await refused(running, 400, "Origin: https://app.example\r\nOrigin: https://evil.example\r\n")
        await join(running, more="Origin: https://app.example\r\n")
        await join(running, more="Origin: http://test\r\n")  # ours: the Host of the request


async def test_cors_for_pages_that_are_allowed() -> None:
    settings = AdmissionSettings(origins=("https://app.example",))
    async with run_gateway(admission=settings) as running, web(running) as http:
        page = {"Origin": "https://app.example"}
        answer = await http.get("/api/topics", headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["vary"] == "origin"
        asked = {**page, "Access-Control-Request-Method": "POST"}
        answer = await http.options("/api/topics", headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers


async def test_pages_that_are_not_allowed_read_nothing_and_change_nothing() -> None:
    async with (
        run_gateway() as running,
        httpx.AsyncClient(base_url=f"http://{ME}:{running.port}", verify=False) as http,
    ):
        page = {"Origin": "https://evil.example"}
        answer = await http.get("/api/topics", headers=page)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
        answer = await http.post("/api/topics", headers=page)
        assert (answer.status_code, answer.json()["status"]) == (403, 403)
        assert "ALLOWED_ORIGINS" in answer.json()["detail"]
        assert (await http.post("/api/topics")).status_code == 405
        preflight = await http.options("/api/topics", headers={**page, "Access-Control-Request-Method": "POST"})
        assert "access-control-allow-methods" not in preflight.headers


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("127.0.0.1:8080", True), ("localhost:8080", True), ("LOCALHOST.", True), ("[::1]:8080", True),
        ("app.localhost:8080", True), ("192.168.1.5", True), ("headrace", True), ("", True),
        ("evil.example", False), ("evil.example:8080", False), ("127.0.0.1.evil.example", False),
        ("Evil.Example.", False), ("notlocalhost.evil.example", False),
    ],
)  # fmt: skip
def test_a_public_name_is_refused_by_a_local_server(host: str, fits: bool) -> None:
    for settings, local, expected in (
        ({}, True, fits),
        ({}, False, True),
        ({"trusted_proxies": (ME,)}, True, True),
        ({"origins": ("*",)}, True, True),
        ({"origins": (f"https://{host.lower()}",)} if host else {}, True, True),
        ({"origins": ("https://other.example",)}, True, fits),
    ):
        door, _ = admission(**settings)
        door.local = local
        try:
            door.check_host([host])
            told = True
        except Refused as refused:
            assert refused.status == 421
            told = False
        assert told is expected, (settings, local)


async def test_a_rebound_name_is_refused() -> None:
    """DNS rebinding: for the browser the page and this server are one site, so a GET bears no Origin."""
    async with run_gateway() as running, web(running) as http:
        for page in ({}, {"Origin": "http://evil.example"}):
            for method in ("GET", "POST", "OPTIONS"):
                answer = await http.request(method, "/api/topics", headers={"Host": "evil.example", **page})
                assert (answer.status_code, answer.json()["status"]) == (421, 421)
        raw = await Raw.connect(running.port)
        raw.send(UPGRADE.format(path="/ws", more="").replace("Host: test", "Host: evil.example").encode())
        assert b" 421 " in await raw.read_head()
        raw.leave()


async def test_an_idle_client_is_closed() -> None:
    async with run_gateway(admission=AdmissionSettings(idle_s=0.2)) as running:
        follower = await join(running, "/ws?subscriptions=slots")
        assert (await follower.json())["type"] == "subscribed"
        idler = await join(running)
        answering = asyncio.create_task(pongs(idler))
        assert await idler.closed() == 1000
        answering.cancel()
        await running.publish("slots")
        assert (await follower.json())["offset"] == "1"
        follower.ask("unsubscribe", 1, topic="slots")
        assert await follower.closed() == 1000


async def pongs(raw: Raw) -> None:
    """Answer heartbeats that nobody sent, for ever: that asks for nothing."""
    while True:
        raw.send(frame(TEXT, b'{"type":"pong"}'))
        await asyncio.sleep(0.05)


async def test_by_default_nobody_is_too_idle() -> None:
    async with run_gateway() as running:
        await join(running)
        assert not running.gateway.keeper.idle
