"""A client that was written for the Node engines, byte for byte what it sends, and reading as crudely as it reads."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.flow.desk import WAY, desk
from tests.flow.desk import ask as command

BODY = b'{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":0.5,"type":"market"}'
CONNECTIONS, ORDERS = 4, 10
ENDS = {"CONFIRMED", "FAILED"}

_STATUS = re.compile(rb'"status":\s*"([A-Z]+)"')
_ORDER_ID = re.compile(rb'"orderId":\s*"([^"]+)"')


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """One request on a connection that is kept; its status and body."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return int(head[9:12]), await reader.readexactly(int(length[1])) if length else b""


async def follow(port: int, path: str) -> list[str]:
    """The statuses that a stream tells, in their order, to the one that ends the order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await ask(reader, writer, request.encode()))[0] == 101
    statuses: list[str] = []
    while not ENDS & set(statuses):
        first, length = await reader.readexactly(2)
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        text = await reader.readexactly(length)
        assert first == 0x81, "only whole text frames are understood"
        statuses += [found.decode() for found in _STATUS.findall(text)]
    writer.close()
    return statuses


@pytest.mark.parametrize("stream", ["/api/orders/{}/stream", "/ws/{}"])
async def test_it_works_unchanged(tmp_path: Path, stream: str) -> None:
    async with desk(tmp_path, QUEUE_MAX_CONCURRENCY="256") as client:
        host = f"Host: 127.0.0.1:{client.port}\r\n".encode()
        content = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        post = b"POST /api/orders/execute HTTP/1.1\r\n" + host + content

        async def use() -> None:
            connection = await asyncio.open_connection("127.0.0.1", client.port)
            for _ in range(ORDERS):
                status, answer = await ask(*connection, post)
                assert status == 201
                found = _ORDER_ID.search(answer)
                assert found is not None
                assert _STATUS.findall(answer) == [b"PENDING"]
                order_id = found[1].decode()
                assert await follow(client.port, stream.format(order_id)) == WAY
                get = b"GET /api/orders/%b HTTP/1.1\r\n%b\r\n" % (found[1], host)
                status, order = await ask(*connection, get)
                assert (status, _STATUS.findall(order)) == (200, [b"CONFIRMED"])
            connection[1].close()

        await asyncio.gather(*[use() for _ in range(CONNECTIONS)])


async def test_a_thousand_posts_with_one_key_at_once_make_one_order(tmp_path: Path) -> None:
    async with desk(tmp_path) as client:
        head = f"POST /api/orders/execute HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nIdempotency-Key: once\r\n"
        post = f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY

        async def use() -> set[bytes]:
            connection = await asyncio.open_connection("127.0.0.1", client.port)
            answers = [await ask(*connection, post) for _ in range(20)]
            connection[1].close()
            assert {status for status, _ in answers} == {201}
            return {answer for _, answer in answers}

        assert len(set().union(*await asyncio.gather(*[use() for _ in range(50)]))) == 1
        listed = (await client.http.get("/api/orders")).json()["orders"]
        assert len(listed) == 1


async def test_the_path_of_an_earlier_service_answers_as_the_one_of_today(tmp_path: Path) -> None:
    """Also its refusals: same statuses, bodies, and headers."""
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client:
        same = {"idempotency-key": "k", "content-type": "application/json"}
        first = await client.http.post("/execute", content=BODY, headers=same)
        again = await client.http.post("/api/orders/execute", content=BODY, headers=same)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"
        assert first.headers["location"] == again.headers["location"]
        for body, headers in ((b"{}", same), (b"nonsense", same), (BODY, {"content-type": "text/plain"})):
            old, new = [
                await client.http.post(path, content=body, headers=headers)
                for path in ("/execute", "/api/orders/execute")
            ]
            assert old.status_code == new.status_code >= 400
            assert old.json() == new.json()


async def test_a_key_is_one_over_http_in_quotes_and_over_websocket(tmp_path: Path) -> None:
    body = json.loads(BODY)
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        first = await client.post(body, **{"Idempotency-Key": '"abc"'})
        for key in ("abc", '"abc"'):
            again = await client.post(body, **{"Idempotency-Key": key})
            assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
            frame = await command(socket, "order.execute", {**body, "idempotencyKey": key})
            assert (frame["data"], frame["replayed"]) == (first.json(), True)
        assert len((await client.http.get("/api/orders")).json()["orders"]) == 1


async def test_a_command_without_the_order_it_is_about_is_told_what_is_missing(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_WORK_HERE="false") as client, client.connect() as socket:
        for kind in ("order.get", "order.cancel"):
            for data in ({}, {"orderId": None}):
                frame = await command(socket, kind, data)
                assert (frame["data"]["message"], frame["data"]["status"]) == ("orderId is missing", 400)
