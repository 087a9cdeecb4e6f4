"""`headrace demo` and `headrace listen`: trades on the terminal and over the wire, without any network."""

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve

from headrace.cli.listening import line_of
from headrace.sdk import Event, Position
from tests.cli.command import PATIENCE_S, Running, run, running
from tests.cli.conftest import Headrace, in_thread

AFRESH = "starting afresh: what was missed can't be had"
QUICK = ("demo", "--no-browser", "--port", "0", "--speed", "20")


async def test_the_demo_prints_trades_and_serves_a_page(tmp_path: Path) -> None:
    async with running(tmp_path, *QUICK) as command:
        url = await command.url()
        await command.until(lambda: len(command.out) >= 3)
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http:
            page, health = await http.get("/"), await http.get("/health/ready")
        command.tell(signal.SIGINT)
        result = await command.end()
    assert any(" buy " in line or " sell " in line for line in result.out.splitlines())
    assert (page.status_code, health.status_code) == (200, 200)
    assert page.headers["content-type"].startswith("text/html")
    assert (result.status, "Traceback" in result.err) == (0, False)
    assert "no_authentication" not in result.err  # only this machine can connect
    assert "trying again" not in result.err  # its own end is no loss


async def test_the_demo_takes_orders_and_leaves_nothing_behind(headrace: Headrace, tmp_path: Path) -> None:
    quick = {"MOCK_QUOTE_MS": "0", "MOCK_EXECUTION_MS": "0", "TMPDIR": str(tmp_path)}
    async with running(tmp_path, *QUICK, "--quiet", **quick) as command:
        url = await command.url()
        placed = await in_thread(headrace, "orders", "place", "SOL", "USDC", "1.5", "--watch", "--url", url)
        assert (placed.status, placed.out.splitlines()[-1].split()[2]) == (0, "CONFIRMED")
        command.tell(signal.SIGINT)
        assert (await command.end()).status == 0
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_a_taken_port_does_not_stop_the_demo(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(tmp_path, *QUICK, SERVER_PORT=str(port)) as other:
            await other.until(lambda: bool(other.out))  # --port counts
        async with running(tmp_path, "demo", "--no-browser", "--quiet", SERVER_PORT=str(port)) as command:
            await command.says(f"^headrace: 127.0.0.1:{port} is taken, so the demo takes a free port$")
            url = await command.url()
            assert not url.endswith(f":{port}")
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:
                assert (await http.get(f"{url}/health/live")).status_code == 200


async def test_a_reader_of_the_demo_that_has_had_enough(tmp_path: Path) -> None:
    async with running(tmp_path, *QUICK) as command:
        await command.url()
        assert command.process.stdout is not None
        command.process.stdout._transport.close()  # type: ignore[attr-defined]
        result = await command.end()
    assert result.status == 141
    assert "Traceback" not in result.err


def listen(demo_url: str) -> tuple[str, ...]:
    return ("listen", "trades:pump", "trades:pump_amm", "--url", f"ws{demo_url[4:]}/ws")


async def test_listen_stops_after_so_many_events(headrace: Headrace, tmp_path: Path) -> None:
    async with running(tmp_path, *QUICK, "--quiet") as demo:
        url = await demo.url()
        text = await in_thread(headrace, *listen(url), "--count", "2")
        frames = await in_thread(headrace, *listen(url), "--count", "2", "--json")
    lines = [line for line in text.out.splitlines() if not line.endswith("begins anew")]  # it plays over and over
    assert (text.status, text.err, len(lines)) == (0, "", 2)
    events = [json.loads(line) for line in frames.out.splitlines() if '"event"' in line]
    assert (frames.status, len(events)) == (0, 2)
    assert events[0]["data"]["type"] == "Trade"


async def test_the_example_follows_the_demo_and_answers_its_heartbeats(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "listen.py"
    beats = {"WEBSOCKET_HEARTBEAT_INTERVAL": "0.1", "WEBSOCKET_PONG_TIMEOUT": "0.4"}
    async with running(tmp_path, *QUICK, "--quiet", **beats) as demo:
        http_url = await demo.url()
        url = f"ws{http_url[4:]}/ws"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(example), url, "trades:pump", "20", stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate()
        async with httpx.AsyncClient(base_url=http_url, trust_env=False, verify=False) as http:
            metrics = (await http.get("/metrics")).text
    assert process.returncode == 0
    assert 'headrace_gateway_closed_total{code="4012"}' not in metrics
    lines = out.decode().splitlines()
    assert sum(line.split()[0] in ("buy", "sell") for line in lines) == 20
    assert {line for line in lines if line.split()[0] not in ("buy", "sell")} <= {
        AFRESH
    }  # the demo plays over and over


async def interrupted(command: Running) -> tuple[int, str, str]:
    command.tell(signal.SIGINT)
    return await command.end()


async def test_listen_says_that_nobody_is_there(tmp_path: Path) -> None:
    async with running(tmp_path, "listen", "slots", "--url", "ws://127.0.0.1:9/ws?token=hush") as command:
        await command.says(r"^headrace: ws://127.0.0.1:9/ws\?token=\*\*\*: .*; trying again until it is there$")
        result = await interrupted(command)
    assert result[0] == 130
    assert result[2].count("\n") == 0


async def test_listen_gives_up_in_time_where_too_little_comes(headrace: Headrace, tmp_path: Path) -> None:
    nowhere = await in_thread(headrace, "listen", "slots", "--url", "ws://127.0.0.1:9/ws", "--timeout", "0.5")
    assert (nowhere.status, nowhere.err.splitlines()[-1]) == (1, "headrace: 0 of any events came in 0.5 s")
    async with running(tmp_path, *QUICK, "--quiet") as demo:
        url = await demo.url()
        some = await in_thread(headrace, *listen(url), "--timeout", "5")
        few = await in_thread(headrace, *listen(url), "--timeout", "1", "--count", "100000000")
    assert (some.status, some.err, "buy" in some.out) == (0, "", True)
    assert few.status == 1
    assert re.fullmatch(r"headrace: \d+ of 100000000 events came in 1 s\n", few.err)


async def test_listen_to_a_topic_that_is_none(headrace: Headrace, tmp_path: Path) -> None:
    async with running(tmp_path, *QUICK, "--quiet") as demo:
        url = f"ws{(await demo.url())[4:]}"
        wrong_topic = await in_thread(headrace, "listen", "no such", "--url", f"{url}/ws")
        wrong_path = await in_thread(headrace, "listen", "slots", "--url", f"{url}/wss")
    assert wrong_topic == (1, "", "headrace: the server refused: no such: unknown topic (102)\n")
    assert (wrong_path.status, wrong_path.err) == (
        1,
        "headrace: the server refused: HTTP Not Found (404); the address of a stream ends in /ws\n",
    )


def test_listen_to_what_is_no_address(headrace: Headrace) -> None:
    result = headrace("listen", "slots", "--url", "http://127.0.0.1:1/ws")
    assert result == (2, "", "headrace: url: got http://127.0.0.1:1/ws, expected a ws:// or wss:// URL\n")


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_count_that_is_none(headrace: Headrace, count: str) -> None:
    assert (
        f"argument --count: got '{count}', expected an integer" in headrace("listen", "slots", f"--count={count}").err
    )


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "x"])
def test_a_speed_that_is_none(headrace: Headrace, speed: str) -> None:
    assert f"got '{speed}', expected a number above 0, or 'max'" in headrace("demo", f"--speed={speed}").err


async def test_what_is_told_of_each_kind_of_frame(tmp_path: Path) -> None:
    """A server that says everything that a server can say about a topic."""
    topic = "trades:pump"
    ack = {"epoch": "e", "offset": "1", "was_recovering": False, "recovered": False, "replayed": 0}
    frames: list[dict[str, Any]] = [
        {"type": "welcome", "data": {"connection_id": "c1", "ping_s": 25, "pong_s": 8}},
        {"type": "subscribed", "id": 1, "topic": topic, "data": ack},
        {"type": "gap", "data": {"gap_id": "g", "from_slot": "5", "to_slot": "7", "state": "open"}},
        {"type": "retract", "data": {"event_ids": ["a", "b"], "reason": "fork"}},
        {"type": "lag", "data": {"from_offset": "4", "to_offset": "6", "dropped": 3}},
        {"type": "promote", "data": {"slot": "5", "commitment": "confirmed"}},
        {"type": "snapshot", "data": {"as_of_slot": "5", "items": [{"type": "news"}], "next": None}},
        {"type": "event", "epoch": "f", "data": {"type": "Slot", "slot": "9"}},
        {"type": "event", "epoch": "g", "offset": "1", "data": {"type": "Slot", "slot": "10"}},
    ]
    offsets = iter("237789")

    async def tell(connection: ServerConnection) -> None:
        for frame in frames:
            if frame["type"] == "subscribed":
                await connection.recv()
            elif frame["type"] not in ("welcome", "lag"):
                frame = {"epoch": "e", "offset": next(offsets), **frame}
            await connection.send(json.dumps({"topic": topic, **frame}))
        await connection.wait_closed()

    async with serve(tell, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await run(tmp_path, "listen", topic, "--url", f"ws://127.0.0.1:{port}", "--count", "2")
    assert result.out.splitlines() == [
        f"{topic}  gap: slots 5 to 7 open",
        f"{topic}  taken back: a, b (fork)",
        f"{topic}  too slow: 3 messages not sent",
        f"{topic}  state: 0 items",
        f"{topic}  was away too long: some messages are gone",
        f'{topic}  {{"type":"Slot","slot":"9"}}',
        f"{topic}  begins anew",
        f'{topic}  {{"type":"Slot","slot":"10"}}',
    ]


def test_a_name_from_the_chain_can_not_command_a_terminal() -> None:
    data = {"type": "TokenCreated", "symbol": "\x1b[2J", "name": "a\nb", "mint": "M"}
    line = line_of(Event(topic="token_updates", position=Position("e", 1), event_id="1", data=data))
    assert line.isprintable()
    assert "\\x1b[2J" in line
