"""The servers of the compose file behind nginx, on PostgreSQL and Valkey, all of them real: one service for clients."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import websockets

from headrace.testing import postgres, valkey
from headrace.testing.node import ScriptedNode
from tests.cli.command import run as run_command
from tests.cli.command import running
from tests.deploy.test_containers import COMPOSED, DEPLOY
from tests.deploy.test_nginx import NGINX, nginx
from tests.flow.life import pump_trade_logs
from tests.mainnet import PUMP
from tests.outside.tools import IN_CI, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (IN_CI or NGINX), reason="no nginx on PATH: the servers of the compose file are not run"),
]

PATIENCE_S: Final = 240.0
TOPIC: Final = "trades:pump"


def environment(name: str, secrets: Path, node: ScriptedNode) -> dict[str, str]:
    """Return what the compose file gives a server, with this machine's places in place of the containers'."""
    given = {key: str(value) for key, value in COMPOSED["services"][name]["environment"].items()}
    given = {key: value.replace("/run/secrets", str(secrets)) for key, value in given.items()}
    return given | {"TRUSTED_PROXIES": "127.0.0.1", "SOLANA_RPC_WS": node.ws_url, "SOLANA_RPC_URL": node.http_url}


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Path]:
    """The folder of secrets, with the URLs of a PostgreSQL and a Valkey that run."""
    folder = tmp_path / "secrets"
    run(DEPLOY / "make-secrets", folder)
    with postgres.server() as database, valkey.server() as redis:
        (folder / "database_url").write_text(database)
        (folder / "redis_url").write_text(redis.url)
        yield folder


async def test_two_servers_are_one_service(tmp_path: Path, secrets: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(PATIENCE_S))
        node = await stack.enter_async_context(ScriptedNode())
        ports: list[int] = []
        for name in ("server-1", "server-2"):
            (tmp_path / name).mkdir()
            env = environment(name, secrets, node)
            command = await stack.enter_async_context(running(tmp_path / name, "serve", **env))
            ports.append(int((await command.url()).rpartition(":")[2]))
        address = await stack.enter_async_context(nginx(tmp_path, *ports))
        made = await run_command(tmp_path, "token", "--sub", "me", "--topics", "*", **env)
        token = made.out.strip()
        clients = [await connect(stack, place, token) for place in (*(f"127.0.0.1:{port}" for port in ports), address)]
        await node.until(lambda: node.subscribed("logs") > 0 and node.subscribed("slot") > 0)
        node.advance_slot()
        node.emit_transaction([PUMP], pump_trade_logs()[0])
        events = [await next_of(client, "event") for client in clients]
        assert len({(event["epoch"], event["offset"], event["event_id"]) for event in events}) == 1

        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as http:
            order = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5}
            placed = await http.post(f"http://{address}/api/orders/execute", json=order)
            assert placed.status_code == 201
            for port in ports:
                path = f"http://127.0.0.1:{port}/api/orders/{placed.json()['orderId']}"
                while (await http.get(path)).json()["status"] != "CONFIRMED":  # noqa: ASYNC110  (polled)
                    await asyncio.sleep(0.1)


async def connect(stack: contextlib.AsyncExitStack, address: str, token: str) -> websockets.ClientConnection:
    """Return a client that has the topic."""
    client = await stack.enter_async_context(websockets.connect(f"ws://{address}/ws", proxy=None))
    await client.send(json.dumps({"type": "auth", "data": {"token": token}}))
    await client.send(json.dumps({"type": "subscribe", "data": {"topic": TOPIC}}))
    await next_of(client, "subscribed")
    return client


async def next_of(client: websockets.ClientConnection, kind: str) -> dict[str, str]:
    while (frame := json.loads(await client.recv()))["type"] != kind:
        pass
    return dict(frame)
