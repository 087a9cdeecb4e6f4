"""The nginx of `deploy/` before real gateways: upgrades, event streams, clients' addresses, a server that is gone."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
import websockets

from headrace.gateway.settings import AdmissionSettings
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.outside.tools import IN_CI

CONF: Final = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"
NGINX: Final = shutil.which("nginx") or ""
BEHIND: Final = AdmissionSettings(trusted_proxies=("127.0.0.1",), per_address_max=2)
PATIENCE_S: Final = 60.0
TOPIC: Final = "trades:pump"

pytestmark = pytest.mark.skipif(not (IN_CI or NGINX), reason="no nginx on PATH: deploy/nginx is not tried")


@asynccontextmanager
async def nginx(folder: Path, *ports: int) -> AsyncIterator[str]:
    """Run nginx with our configuration before servers on these ports; yield its address as `host:port`."""
    for _ in range(5):  # another process may take the free port first
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "{}:{}".format(*free.getsockname())
        process = await start(folder, address, ports)
        while process.returncode is None and not await answers(address):  # noqa: ASYNC110  (nginx reports no port)
            await asyncio.sleep(0.02)
        if process.returncode is None:
            break
    assert process.returncode is None
    try:
        yield address
    finally:
        process.terminate()
        await process.wait()


async def start(folder: Path, address: str, ports: tuple[int, ...]) -> asyncio.subprocess.Process:
    text = CONF.read_text().replace("listen 80;", f"listen {address};")
    for number, port in enumerate(ports, 1):
        text = text.replace(f"server server-{number}:8080 ", f"server 127.0.0.1:{port} ")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(text.replace("http {", f"http {{ {paths}", 1))
    on_top = f"daemon off; master_process off; error_log stderr crit; pid {folder}/pid;"
    return await asyncio.create_subprocess_exec(NGINX, "-p", folder, "-c", folder / "nginx.conf", "-g", on_top)


async def answers(address: str) -> bool:
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            return (await http.get("/metrics")).status_code == 404
    except httpx.TransportError:
        return False


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[RunningGateway]]:
    """Yield gateways that believe nginx, and take two connections of one address each."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(run_gateway(admission=BEHIND)) for _ in range(count)]


def open_socket(address: str, client: str, **headers: str) -> websockets.connect:
    """Return a WebSocket from one of this machine's loopback addresses."""
    return websockets.connect(f"ws://{address}/ws", local_addr=(client, 0), additional_headers=headers, proxy=None)


async def test_websockets_pass_and_count_for_the_address_of_their_client(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        servers(1) as (only,),
        nginx(tmp_path, only.port, only.port) as address,
        open_socket(address, "127.0.0.2") as first,
        open_socket(address, "127.0.0.2"),
    ):
        await first.send('{"type":"subscribe","data":{"topic":"trades:pump"}}')
        await only.subscriptions(1)
        await only.publish(TOPIC)
        frames = ""
        while '"event"' not in frames:
            frames = str(await first.recv())
        for forged in ({}, {"X-Forwarded-For": "9.9.9.9"}):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(address, "127.0.0.2", **forged)
            assert refused.value.response.status_code == 429
        async with open_socket(address, "127.0.0.3"):
            pass


async def test_an_event_stream_delivers_each_event_at_once(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE_S), servers(1) as (only,), nginx(tmp_path, only.port, only.port) as address:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(f"GET /api/topics/{TOPIC}/sse HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        for expected in (b'"type":"subscribed"', b'"type":"event"', b'"type":"event"'):
            while expected not in await reader.readline():
                pass
            await only.publish(TOPIC)
        writer.close()
        await writer.wait_closed()


async def test_requests_go_to_the_server_that_is_there(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack, servers(1) as (stays,):
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        leaves = await stack.enter_async_context(run_gateway(admission=BEHIND))
        address = await stack.enter_async_context(nginx(tmp_path, leaves.port, stays.port))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{address}", trust_env=False))
        await leaves.gateway.stop(0.0)
        for _ in range(10):
            assert (await http.get("/api/info")).status_code == 200
            async with open_socket(address, "127.0.0.2"):
                pass


async def test_metrics_are_not_for_clients(tmp_path: Path) -> None:
    async with (
        servers(1) as (only,),
        nginx(tmp_path, only.port, only.port) as address,
        httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http,
    ):
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.get("/health/ready")).status_code == 200
