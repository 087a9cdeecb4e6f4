"""The scripted Yellowstone node serves the official client for Node, which reads with its own messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from headrace.model.keys import b58decode
from headrace.testing.ledger import made_up_key
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.mainnet import update
from tests.outside.tools import HERE, NODE, needs_node_tools
from tests.sources.yellowstone.recorded import recorded

pytestmark = needs_node_tools
PROGRAM = made_up_key("program")


class Printed:
    """Lines that the client printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Any] = []

    def all(self, kind: str) -> list[Any]:
        return [each[kind] for each in self.lines if kind in each]

    async def subscribed(self, node: ScriptedYellowstone) -> None:
        """Return when the node has the client's subscription. The client prints a line before it subscribes."""
        await self.until(lambda: bool(self.all("head")))
        async with asyncio.timeout(60):
            await node.until(lambda: node.subscribers == 1)

    async def until(self, condition: Callable[[], bool]) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while not condition():
                line = await self.process.stdout.readline()
                assert line, self.lines
                if line.startswith(b"{"):
                    self.lines.append(json.loads(line))


@asynccontextmanager
async def client_of(node: ScriptedYellowstone, token: str, program: str) -> AsyncIterator[Printed]:
    process = await asyncio.create_subprocess_exec(
        NODE, str(HERE / "yellowstone.mjs"), node.url, token, program, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Printed(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_updates_are_those_that_were_sent() -> None:
    async with ScriptedYellowstone(token="secret") as node, client_of(node, "secret", PROGRAM) as printed:
        await printed.subscribed(node)
        node.emit_account(made_up_key("wrong size"), PROGRAM, b"\x01\x02")
        node.emit_account(made_up_key("wrong byte"), PROGRAM, b"\x01\x03\x02")
        sent = node.emit_account(made_up_key("right"), PROGRAM, b"\x01\x02\x03", lamports=2**64 - 1)
        landed = node.emit_transaction([PROGRAM], ["Program log: hello"], err={"InstructionError": [0, {"Custom": 7}]})
        slot = node.ledger.head
        node.advance_slot()
        node.ping()
        await printed.until(lambda: bool(printed.all("blockMeta")) and len(printed.all("slotUpdate")) >= 3)
        async with asyncio.timeout(60):
            await node.until(lambda: node.pings_answered == 1)
        assert printed.all("head") == [str(slot)]
        (account,) = printed.all("account")
        assert account == {
            "slot": str(slot),
            "pubkey": b58decode(sent.pubkey).hex(),
            "owner": b58decode(PROGRAM).hex(),
            "lamports": str(2**64 - 1),
            "data": "010203",
            "writeVersion": str(sent.write_version),
        }
        (transaction,) = printed.all("transaction")
        assert transaction["signature"] == b58decode(landed.signature).hex()
        assert transaction["logs"] == ["Program log: hello"]
        assert transaction["err"] == "08000000" + "00" + "19000000" + "07000000"
        assert printed.all("blockMeta")[0] == {"slot": str(slot), "blockhash": node.blockhash(slot)}
        assert [each["status"] for each in printed.all("slotUpdate")][:3] == [0, 3, 5]


async def test_recorded_transactions_are_read_by_the_client() -> None:
    for entry in recorded()[:3]:
        told = update(entry.file)
        async with ScriptedYellowstone() as node, client_of(node, "", told.account_keys[0]) as printed:
            await printed.subscribed(node)
            node.play([told])
            await printed.until(lambda printed=printed: bool(printed.all("transaction")))  # type: ignore[misc]
            (transaction,) = printed.all("transaction")
            meta = entry.document["transaction"]["meta"]
            assert transaction["logs"] == meta["logMessages"]
            assert transaction["signature"] == b58decode(told.signature).hex()
            assert [mint for mint, _ in transaction["post"]] == [
                balance["mint"] for balance in meta["postTokenBalances"]
            ]
            assert int(transaction["fee"]) == int(meta["fee"])


async def test_status_ends_the_stream_of_the_client() -> None:
    async with ScriptedYellowstone() as node, client_of(node, "", PROGRAM) as printed:
        await printed.subscribed(node)
        node.end(grpc.StatusCode.INTERNAL, "lagged to receive geyser messages")
        await printed.until(lambda: bool(printed.all("error")))
        assert "receive failed" in printed.all("error")[0]["message"]
