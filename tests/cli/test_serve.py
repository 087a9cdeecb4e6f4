"""`headrace serve` as a process: without a network, under signals, and while its settings change."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from headrace.testing.node import ScriptedNode
from tests.cli.command import NOWHERE, PATIENCE_S, Running, run, running


async def ready(command: Running) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return await http.get(f"{await command.url()}/health/ready")


async def test_without_a_network_it_starts_and_says_what_is_missing(tmp_path: Path) -> None:
    quick = {"SOLANA_BACKOFF_INITIAL_S": "0.001", "SOLANA_BACKOFF_MAX_S": "0.002"}
    async with running(tmp_path, "serve", SOLANA_RPC_WS=f"{NOWHERE}/?api-key=hush", **quick) as command:
        await command.says("no_connection")
        answer = await ready(command)
        async with asyncio.timeout(PATIENCE_S):
            while "connecting after: " not in answer.text:
                answer = await ready(command)
        command.tell(signal.SIGTERM)
        result = await command.end()
    assert answer.status_code == 503
    assert not answer.json()["components"]["source:rpc"]["ready"]
    assert answer.json()["components"]["gateway"]["ready"]
    assert "hush" not in result.err + answer.text
    told = [line for line in result.err.splitlines() if "no_connection" in line]
    assert len(told) == 1  # though it has tried many times by now
    assert f"{NOWHERE}/?api-key=***" in told[0]
    assert (result.status, result.out) == (0, "")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sends_clients_elsewhere_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with ScriptedNode() as node, running(tmp_path, "serve", SOLANA_RPC_WS=node.ws_url) as command:
        async with connect(f"ws{(await command.url())[4:]}/ws") as socket:
            await socket.recv()
            command.tell(number)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        result = await command.end()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "shutdown")
    assert result.status == 0
    assert "Traceback" not in result.err
    assert "error" not in result.err
    assert [word for word in ("stopping", "stopped") if word in result.err] == ["stopping", "stopped"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """A client that never answers the close would hold up the first for WEBSOCKET_CLOSE_S."""
    given = {"SOLANA_RPC_WS": NOWHERE, "WEBSOCKET_CLOSE_S": "3600"}
    async with running(tmp_path, "serve", **given) as command:
        port = int((await command.url()).rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"welcome")
        command.tell(number)
        await reader.readuntil(b"shutdown")
        command.tell(number)
        result = await command.end()
        writer.close()
    assert result.status == status
    assert "Traceback" not in result.err


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await run(tmp_path, "serve", "--port", str(port), SOLANA_RPC_WS=NOWHERE)
    assert result == (2, "", f"headrace: SERVER_PORT: got 127.0.0.1:{port}, expected an address that is free here")


async def test_settings_change_while_it_runs(tmp_path: Path) -> None:
    """Level, limits, subscriptions and switches; all or nothing; what needs a restart is named."""
    file = tmp_path / "headrace.toml"

    def write(subscriptions: str, more: str = "", topics_max: object = 5) -> None:
        new = tmp_path / "new"
        new.write_text(f"[rpc_pubsub]\nsubscriptions = {subscriptions}\n[gateway]\ntopics_max = {topics_max}\n{more}")
        new.rename(file)

    async with ScriptedNode() as node:
        write('["logs:pump"]')
        given = {"SOLANA_RPC_WS": node.ws_url, "SOLANA_RPC_URL": node.http_url}
        async with asyncio.timeout(PATIENCE_S), running(tmp_path, "serve", **given) as command:
            url = await command.url()
            await node.until(lambda: node.subscribed("logs") == 1)

            write('["logs:pump", "logs:pump_amm"]', "[core]\nlog_level = 'warning'\nlog_format = 'json'\n", 7)
            await node.until(lambda: node.subscribed("logs") == 2)
            await command.says(r"settings_need_restart.* keys=core.log_format")
            assert not any("settings_applied" in line for line in command.err)  # the new level holds at once
            assert await topics_max(url) == 7

            write('["logs:pump"]', "[core]\nlog_level = 'loud'\n", 0)
            command.tell(signal.SIGHUP)
            await command.says(r"settings_refused.*core.log_level: got 'loud'")
            await command.says(r"settings_refused.*gateway.topics_max: got 0")
            assert (await topics_max(url), node.subscribed("logs")) == (7, 2)

            write('["logs:no_such_program"]', topics_max=9)
            command.tell(signal.SIGHUP)
            await command.says(r"settings_refused.*no_such_program")
            assert (await topics_max(url), node.subscribed("logs")) == (7, 2)

            write('["logs:pump"]', "[features]\nstream = false\n", 9)
            command.tell(signal.SIGHUP)
            await node.until(lambda: node.subscribed("logs") == 0)
            assert await topics_max(url) == 9
            assert (await ready(command)).status_code == 200

            write('["logs:pump"]', "[features]\nstream = true\n", 9)
            command.tell(signal.SIGHUP)
            await node.until(lambda: node.subscribed("logs") == 1)

            command.tell(signal.SIGTERM)
            result = await command.end()
    assert result.status == 0
    assert "Traceback" not in result.err


async def topics_max(url: str) -> int:
    """What a new client is told."""
    async with connect(f"ws{url[4:]}/ws") as socket:
        limits = json.loads(await socket.recv())["data"]["limits"]
    return int(limits["topics"])


async def test_sighup_reads_the_settings_again(tmp_path: Path) -> None:
    async with running(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE) as command:
        url = await command.url()
        (tmp_path / "headrace.toml").write_text("[gateway]\ntopics_max = 7\n[core]\nlog_level = 'debug'\n")
        command.tell(signal.SIGHUP)
        await command.says("settings_applied.*gateway.topics_max")
        assert await topics_max(url) == 7
        command.tell(signal.SIGTERM)
        assert (await command.end()).status == 0


async def test_parts_that_are_switched_off(tmp_path: Path) -> None:
    off = {"DASHBOARD_ENABLED": "false", "METRICS_ENABLED": "false", "TRANSACTION_LISTENER_ENABLED": "false"}
    async with running(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE, **off) as command:
        url = await command.url()
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            paths = ("/", "/metrics", "/client/headrace.js", "/health/ready")
            statuses = [(await http.get(f"{url}{path}")).status_code for path in paths]
    assert statuses == [404, 404, 200, 200]


async def test_wrong_subscriptions_stop_the_start(tmp_path: Path) -> None:
    for stream in ("true", "false"):
        wrong = {"SUBSCRIPTIONS": "logs:pump,account:nobody", "TRANSACTION_LISTENER_ENABLED": stream}
        result = await run(tmp_path, "serve", **wrong)
        assert result.status == 2
        assert "SUBSCRIPTIONS: got account:nobody" in result.err
        assert "serving" not in result.err


async def test_orders_are_on_and_it_says_where_they_are_kept(tmp_path: Path) -> None:
    async with running(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE) as command:
        told = await command.says("orders_on")
        url = await command.url()
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            body = {"tokenIn": "SOL", "tokenOut": "USDC", "uiAmount": "1.5"}
            answer = await http.post(f"{url}/api/orders/execute", json=body)
        command.tell(signal.SIGTERM)
        result = await command.end()
    assert answer.status_code == 201
    assert "headrace-orders.db" in told.string
    assert (tmp_path / "headrace-orders.db").is_file()
    assert result.status == 0


async def test_where_nothing_can_be_written_it_streams(tmp_path: Path) -> None:
    for taken in ("headrace-orders.db", "headrace-inbox.db"):
        (tmp_path / taken).mkdir()
    async with running(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE) as command:
        await command.says("orders_not_open")
        await command.says("inbox_not_open")
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            assert (await http.get(f"{await command.url()}/health/live")).status_code == 200
        command.tell(signal.SIGTERM)
        assert (await command.end()).status == 0


@pytest.mark.parametrize(("setting", "part"), [("ORDERS_FILE", "order store"), ("MOCK_CHAIN_FILE", "chain")])
async def test_orders_that_nobody_asked_for_do_not_keep_the_stream_from_running(
    tmp_path: Path, setting: str, part: str
) -> None:
    gone = str(tmp_path / "gone" / "file.db")
    async with running(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE, **{setting: gone}) as command:
        url = await command.url()
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            assert (await http.get(f"{url}/health/live")).status_code == 200
            ready = await http.get(f"{url}/health/ready")
            assert (ready.status_code, ready.json()["components"][part]["ready"]) == (503, False)
            if part == "order store":
                assert (await http.get(f"{url}/api/orders")).status_code == 503
        command.tell(signal.SIGTERM)
        assert (await command.end()).status == 0
    refused = await run(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE, ORDERS_ENABLED="true", **{setting: gone})
    assert refused.status == 2
    assert setting in refused.err
