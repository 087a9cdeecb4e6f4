"""What users are sent outlives the process, also one that gets no time to end."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.cli.command import NOWHERE, run, running

LETTER = {"user_ids": ["42"], "ack": True, "data": {"n": 1}, "idempotency_key": "once"}


@asynccontextmanager
async def life(folder: Path) -> AsyncIterator[str]:
    """A service's address; at the end it is killed on the spot."""
    async with running(folder, "serve", SOLANA_RPC_WS=NOWHERE) as command:
        yield await command.url()
        command.tell(signal.SIGKILL)
        await command.end()


async def post(url: str) -> Any:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return (await http.post(f"{url}/api/ws/broadcast", json=LETTER)).json()


async def told(socket: ClientConnection) -> Any:
    return json.loads(await socket.recv())


async def test_letters_and_acknowledgements_survive_kill_9(tmp_path: Path) -> None:
    async with life(tmp_path) as url:
        first = await post(url)
        assert (first["offset"], first["duplicate"]) == ("1", False)
    async with life(tmp_path) as url:
        assert await post(url) == first | {"duplicate": True}
        async with connect(f"ws{url[4:]}/ws?user_id=42") as socket:
            assert (await told(socket))["type"] == "welcome"
            assert (await told(socket))["data"]["replayed"] == 1
            letter = await told(socket)
            assert (letter["epoch"], letter["offset"], letter["data"]) == (first["epoch"], "1", {"n": 1})
            await socket.send('{"type":"ack","id":1,"data":{"topic":"user:42","offset":"1"}}')
            assert (await told(socket))["type"] == "acknowledged"
    async with life(tmp_path) as url, connect(f"ws{url[4:]}/ws?user_id=42") as socket:
        assert (await told(socket))["type"] == "welcome"
        position = (await told(socket))["data"]
        assert (position["epoch"], position["offset"], position["replayed"]) == (first["epoch"], "1", 0)


async def test_a_file_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    result = await run(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE, INBOX_FILE="nowhere/inbox.db")
    assert result.status != 0
    assert "INBOX_FILE" in result.err
    assert "Traceback" not in result.err
