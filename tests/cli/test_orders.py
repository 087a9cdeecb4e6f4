"""`headrace orders` against a server of its own, each command a process as people run it."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import pytest

from headrace.cli.ordering import line_of, table
from tests.cli.command import Result, Running, run, running
from tests.cli.conftest import Headrace, in_thread
from tests.hostile.meter import Meter
from tests.orders.store.servers import write

SERVER = {
    "TRANSACTION_LISTENER_ENABLED": "false",
    "ORDERS_ENABLED": "true",
    "MOCK_QUOTE_MS": "0",
    "MOCK_EXECUTION_MS": "0",
    "QUEUE_RATE_LIMIT_PER_MINUTE": "0",
    "ORDER_FINALITY_MS": "3600000",
}


@asynccontextmanager
async def server(folder: Path, **settings: str) -> AsyncIterator[tuple[Running, str]]:
    async with running(folder, "serve", **{**SERVER, **settings}) as command:
        yield command, await command.url()


async def orders(folder: Path, verb: str, url: str, *words: str) -> Result:
    return await run(folder, "orders", verb, *words, "--url", url)


async def test_an_order_is_placed_and_watched_to_its_end(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, url):
        placed = await orders(tmp_path, "place", url, "SOL", "USDC", "1.5", "--user", "ann", "--key", "k", "--watch")
        assert placed.status == 0, placed.err
        order_id, *lines = placed.out.splitlines()
        assert [line.split()[3] for line in lines] == ["accepted", "claimed", "quoted", "journaled", "landed"]
        assert "executedPrice" in lines[-1]
        again = await orders(tmp_path, "place", url, "SOL", "USDC", "1.5", "--user", "ann", "--key", "k")
        assert again.out.strip() == order_id
        log = await orders(tmp_path, "events", url, order_id)
        assert log.out.splitlines() == lines
        as_json = await orders(tmp_path, "events", url, order_id, "--json")
        assert [json.loads(line)["seq"] for line in as_json.out.splitlines()] == [1, 2, 3, 4, 5]
        watched = await orders(tmp_path, "watch", url, order_id, "--from-seq", "4")
        assert (watched.status, watched.out.splitlines()) == (0, lines[-1:])
        over = await orders(tmp_path, "watch", url, order_id, "--from-seq", "5")
        assert (over.status, over.out) == (0, "")
        late = await orders(tmp_path, "cancel", url, order_id)
        assert (late.status, late.err) == (1, "headrace: 409 the order is already CONFIRMED")


async def test_a_key_said_twice_with_the_same_time_to_live_is_one_order(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, url):
        words = ("SOL", "USDC", "1.5", "--limit", "999.5", "--key", "k", "--expires-in", "3600")
        first = await orders(tmp_path, "place", url, *words, "--json")
        again = await orders(tmp_path, "place", url, *words, "--json")
        assert (first.status, again.status) == (0, 0), again.err
        placed = json.loads(first.out)
        assert placed == json.loads(again.out)
        assert placed["expiresAt"] == placed["createdAt"] + 3_600_000
        other = await orders(tmp_path, "place", url, *words[:-1], "7200")
        assert other.err.startswith("headrace: 422 ")


async def test_what_rests_is_listed_and_cancelled(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, url):
        placed = await orders(tmp_path, "place", url, "SOL", "USDC", "2", "--limit", "999.5", "--json")
        order = json.loads(placed.out)
        assert (order["type"], order["trigger"]["price"]) == ("limit", "999.5")
        await orders(tmp_path, "place", url, "USDC", "SOL", "7000001", "--base-units", "--stop", "0.001")
        listed = await orders(tmp_path, "list", url, "--user", "anonymous", "--status", "PENDING")
        head, stop, limit = (line.split() for line in listed.out.splitlines())
        assert head == ["ORDER", "STATUS", "TYPE", "IN", "OUT", "PRICE", "DEX", "USER"]
        assert stop[1:] == ["RESTING", "stop", "7.000001", "USDC", "SOL", "@", "0.001", "anonymous"]
        assert limit == [order["orderId"], "RESTING", "limit", "2", "SOL", "USDC", "@", "999.5", "anonymous"]
        page = await orders(tmp_path, "list", url, "--limit", "1")
        cursor = page.out.splitlines()[-1].removeprefix("more: --cursor ")
        rest = await orders(tmp_path, "list", url, "--cursor", cursor, "--json")
        assert rest.status == 0, rest.err
        assert [json.loads(line)["orderId"] for line in rest.out.splitlines()] == [order["orderId"]]
        assert (await orders(tmp_path, "cancel", url, order["orderId"])).out == "cancelled"
        watched = await orders(tmp_path, "watch", url, order["orderId"])
        assert (watched.status, watched.out.splitlines()[-1].split()[2:]) == (1, ["CANCELLED", "cancelled"])
        spoil = "update orders set request = '{garbage' where id = ?"
        await write(str(tmp_path / "headrace-orders.db"), spoil, order["orderId"])
        left = await orders(tmp_path, "list", url, "--json")
        assert [json.loads(line)["orderId"] for line in left.out.splitlines()] == [stop[0]]
        assert left.err == "1 more can't be read there: its log names them"


async def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    async with server(tmp_path, ORDERS_WORK_HERE="false") as (_, url):
        refused = await orders(tmp_path, "place", url, "SOL", "SOL", "-1")
        assert (refused.status, refused.out) == (1, "")
        assert "tokenOut is the same as tokenIn" in refused.err
        for verb in ("watch", "events", "cancel"):
            unknown = await orders(tmp_path, verb, url, "../../metrics")
            assert (unknown.status, unknown.out) == (1, ""), verb
            assert "Traceback" not in unknown.err


def test_nobody_there(headrace: Headrace) -> None:
    for words in (("place", "SOL", "USDC", "1"), ("list",), ("watch", "x")):
        result = headrace("orders", *words, "--url", "http://127.0.0.1:9")
        assert (result.status, result.out) == (1, "")
        assert result.err.startswith("headrace: http://127.0.0.1:9: ")
        assert "fate unknown" not in result.err


@pytest.mark.parametrize("words", [("list", "--url", "ftp://x"), ("place", "a", "b", "1", "--limit=1", "--stop=1")])
def test_wrong_usage(headrace: Headrace, words: tuple[str, ...]) -> None:
    assert headrace("orders", *words).status == 2


def test_a_table_and_a_line_can_not_command_a_terminal() -> None:
    assert table(("A", "B"), [["x\x1b[2J", "1"], ["long", ""]]).splitlines() == ["A         B", "x\\x1b[2J  1", "long"]
    event = {"seq": 1, "timestamp": 1500, "status": "FAILED", "event": "failed", "errorReason": "\x1b[2J"}
    assert line_of(event) == "  1  00:00:01.500Z  FAILED     failed  errorReason \\x1b[2J"


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[str]:
    """A server that reads a request and answers with these bytes, the last one again and again until nobody reads."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in (*pieces[:-1], *repeat(pieces[-1], PIECES_MAX)):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
            await reader.read()  # closing before all is read would reset the connection
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as there:
        yield f"http://127.0.0.1:{there.sockets[0].getsockname()[1]}"


PIECES_MAX = 64
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
ANSWERS: dict[str, tuple[tuple[bytes, ...], str]] = {
    "plain": ((HEAD + b"\r\n", b" " * 1_000_000), "more than 4194304 bytes"),
    "gzip": (
        (HEAD + b"content-encoding: gzip\r\nconnection: close\r\n\r\n", gzip.compress(bytes(100_000_000))),
        "content coding 'gzip', expected none",
    ),
    "nested": (
        (HEAD + b"content-length: 200000\r\n\r\n" + b"[" * 200_000, b""),
        "no JSON object",
    ),
    "a list": ((HEAD.replace(b"200 OK", b"500 x") + b"content-length: 2\r\n\r\n[]", b""), "no JSON object"),
    "not UTF-8": ((HEAD + b'content-length: 8\r\n\r\n{"a\xff":1}', b""), "no JSON object"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_that_are_too_large_packed_or_no_object_are_refused(headrace: Headrace, name: str) -> None:
    pieces, said = ANSWERS[name]
    async with answering(*pieces) as url, Meter() as meter:
        listed = await in_thread(headrace, "orders", "list", "--url", url)
        placed = await in_thread(headrace, "orders", "place", "SOL", "USDC", "1", "--key", "k-1", "--url", url)
    assert (listed.status, placed.status) == (1, 1)
    assert said in listed.err
    assert "fate unknown" not in listed.err
    assert said in placed.err
    assert "fate unknown; ask again with --key k-1" in placed.err
    assert meter.grown_bytes < 60_000_000
