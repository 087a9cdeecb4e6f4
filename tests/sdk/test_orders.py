"""Order methods of both clients against a running service: placed once over cut connections, watched, refused."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from headrace.runtime.backoff import Backoff
from headrace.sdk import Client, OrderRefused
from headrace.testing.proxy import TcpProxy
from tests.flow.desk import desk
from tests.sdk.clients import CLIENT_JS, NODE, PATIENCE_S

ORDER_JS = Path(__file__).with_name("order.js")
ORDER = {"tokenIn": "SOL", "tokenOut": "USDC", "uiAmount": "1.5", "slippageBps": 5000}
STATUSES = ["PENDING", "ROUTING", "BUILDING", "SUBMITTED", "CONFIRMED"]


class Trader(Protocol):
    """Calls a method by its JavaScript name: `{"answer": …}`, or `{"refused": …}` with the fields of OrderRefused."""

    async def __call__(self, name: str, *arguments: Any) -> dict[str, Any]: ...


Opener = Callable[[str], AbstractAsyncContextManager[Trader]]


@asynccontextmanager
async def python(url: str) -> AsyncIterator[Trader]:
    async with Client(url, backoff=Backoff(0.001, 0.02)) as client:

        async def call(name: str, *arguments: Any) -> dict[str, Any]:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if name == "watch":
                        return {"answer": [order async for order in client.watch(*arguments)]}
                    options = arguments[1] if len(arguments) > 1 else {}
                    answer = await getattr(client, name)(arguments[0], **options)
                    return {"answer": msgspec.to_builtins(answer)}
            except OrderRefused as refused:
                names = ("code", "key", "reason", "fate", "retryable", "errors")
                return {"refused": {name: getattr(refused, name) for name in names}}

        yield call


@asynccontextmanager
async def node(url: str) -> AsyncIterator[Trader]:
    process = await asyncio.create_subprocess_exec(
        NODE, "--experimental-websocket", "--no-warnings", str(ORDER_JS), (CLIENT_JS / "headrace.js").as_uri(), url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr, limit=2**24,
    )  # fmt: skip

    async def call(name: str, *arguments: Any) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            answer: dict[str, Any] = json.loads(await process.stdout.readline())
        return answer

    try:
        yield call
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


needs_node = pytest.mark.skipif(not NODE, reason="no node on PATH: the JavaScript client is not run in it")
of_both = pytest.mark.parametrize("trader", [python, pytest.param(node, marks=needs_node)])


@of_both
async def test_an_order_is_placed_watched_to_its_end_and_read(trader: Opener, tmp_path: Path) -> None:
    async with desk(tmp_path) as there, trader(f"ws://127.0.0.1:{there.port}/ws") as call:
        placed = (await call("execute", ORDER))["answer"]
        assert (placed["order"]["status"], placed["replayed"]) == ("PENDING", False)
        order_id = placed["order"]["orderId"]
        states = (await call("watch", order_id))["answer"]
        seqs = [order["seq"] for order in states]
        assert seqs == sorted(set(seqs))
        assert [STATUSES.index(order["status"]) for order in states] == sorted(
            STATUSES.index(order["status"]) for order in states
        )
        assert states[-1]["status"] == "CONFIRMED"
        read = (await call("order", order_id))["answer"]["order"]
        assert (read["status"], read["txHash"]) == ("CONFIRMED", states[-1]["txHash"])
        assert [order["status"] for order in (await call("watch", order_id))["answer"]] == ["CONFIRMED"]


@of_both
async def test_an_order_is_placed_once_however_often_the_connection_is_cut(trader: Opener, tmp_path: Path) -> None:
    async with (
        desk(tmp_path, ORDERS_WORK_HERE="false", WEBSOCKET_COMMANDS_PER_S="1000") as there,
        TcpProxy("127.0.0.1", there.port) as proxy,
        trader(f"ws://127.0.0.1:{proxy.port}/ws") as call,
    ):
        placed = []
        for number in range(12):
            proxy.cut_after(150 + 61 * number)  # in the handshake, in the command, in its answer
            placed.append((await call("execute", {**ORDER, "clientOrderId": None}))["answer"]["order"]["orderId"])
        listed = (await there.http.get("/api/orders", params={"limit": 100})).json()["orders"]
    assert len(set(placed)) == 12
    assert sorted(order["orderId"] for order in listed) == sorted(placed)


@of_both
async def test_a_key_finds_the_order_that_was_placed_under_it(trader: Opener, tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as there, trader(f"ws://127.0.0.1:{there.port}/ws") as call:
        first = (await call("execute", ORDER, {"key": "buy-1"}))["answer"]
        again = (await call("execute", ORDER, {"key": "buy-1"}))["answer"]
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert again["order"]["orderId"] == first["order"]["orderId"]
        other = (await call("execute", {**ORDER, "uiAmount": "2"}, {"key": "buy-1"}))["refused"]
        assert (other["reason"], other["key"], other["fate"]) == ("idempotency_key_reused", "buy-1", "not_executed")


@of_both
async def test_a_cancelled_order_can_not_be_cancelled_again(trader: Opener, tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as there, trader(f"ws://127.0.0.1:{there.port}/ws") as call:
        order_id = (await call("execute", ORDER))["answer"]["order"]["orderId"]
        cancelled = (await call("cancel", order_id))["answer"]
        assert (cancelled["order"]["status"], cancelled["requested"]) == ("CANCELLED", False)
        over = (await call("cancel", order_id))["refused"]
        assert (over["reason"], over["fate"], over["retryable"]) == ("order_over", "not_executed", False)


@of_both
async def test_a_wrong_order_is_refused_with_its_wrong_fields(trader: Opener, tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as there, trader(f"ws://127.0.0.1:{there.port}/ws") as call:
        refused = (await call("execute", {**ORDER, "priority": 77}, {"key": "k"}))["refused"]
        assert (refused["reason"], refused["fate"], list(refused["errors"])) == (
            "invalid_order",
            "not_executed",
            ["priority"],
        )
        unknown = (await call("order", "019aa7c8-5f60-7d2c-b2c6-0d5e7a4b9c11"))["refused"]
        assert (unknown["reason"], unknown["key"]) == ("unknown_order", None)


@of_both
async def test_a_server_without_orders_refuses_for_good(trader: Opener, tmp_path: Path) -> None:
    async with (
        desk(tmp_path, ORDERS_ENABLED="false") as there,
        trader(f"ws://127.0.0.1:{there.port}/ws") as call,
    ):
        refused = (await call("execute", ORDER))["refused"]
    assert (refused["code"], refused["fate"]) == (107, "unknown")


async def test_the_how_to_places_an_order_and_prints_its_states(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/place-orders.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    async with desk(tmp_path) as there:
        code = program.replace("127.0.0.1:8080", f"127.0.0.1:{there.port}")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.decode().splitlines()[-1].startswith("CONFIRMED ")


@of_both
async def test_a_quote_is_answered_or_refused_with_a_reason(trader: Opener, tmp_path: Path) -> None:
    async with desk(tmp_path) as there, trader(f"ws://127.0.0.1:{there.port}/ws") as call:
        asked = {"inputMint": "SOL", "outputMint": "USDC", "amount": "1500000000", "slippageBps": 50}
        offer = (await call("quote", asked))["answer"]
        assert (offer["amountIn"], offer["slippageBps"], offer["swapMode"]) == ("1500000000", 50, "ExactIn")
        none = (await call("quote", {**asked, "swapMode": "ExactOut"}))["refused"]
        assert (none["reason"], none["fate"], none["retryable"]) == ("no_quote", "not_executed", True)
        wrong = (await call("quote", {**asked, "amount": "0"}))["refused"]
        assert (wrong["reason"], list(wrong["errors"])) == ("invalid_query", ["amount"])
