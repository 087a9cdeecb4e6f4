"""A whole service over Yellowstone: a program's accounts come to the bus, and filters change on a reload."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from headrace.config import load
from headrace.model.events import Message
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import SECTIONS
from headrace.testing.ledger import made_up_key
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.sources.yellowstone.rig import PROGRAM

KEY, OTHER = made_up_key("account"), made_up_key("another program")


class Published:
    """All messages of topics of accounts."""

    def __init__(self, node: ScriptedYellowstone, dotenv: Path) -> None:
        self.node, self.dotenv = node, dotenv
        self.messages: list[Message] = []

    def take(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    def kinds(self, topic: str) -> list[str]:
        return [message.kind for message in self.messages if message.topic == topic]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self.node.advance_slot()
                await asyncio.sleep(0.01)


def settings(node: ScriptedYellowstone, folder: Path, filters: str = "") -> str:
    return (
        f"YELLOWSTONE_URLS={node.url}\nYELLOWSTONE_X_TOKEN=secret\nSUBSCRIPTIONS=program:{PROGRAM}\n"
        f"SOLANA_RPC_URL={node.http_url}\nGATEWAY_ENABLED=false\nORDERS_ENABLED=false\n"
        f"INBOX_FILE={folder / 'inbox.db'}\nHISTORY_FILE={folder / 'history'}\nYELLOWSTONE_FILTERS='{filters}'\n"
    )


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Published]:
    async with ScriptedYellowstone(token="secret") as node:
        dotenv = folder / ".env"
        await asyncio.to_thread(dotenv.write_text, settings(node, folder))
        config = await asyncio.to_thread(partial(load, SECTIONS, env={}, dotenv=dotenv, toml=None))
        service = await asyncio.to_thread(Service, config)
        stop, published = asyncio.Event(), Published(node, dotenv)
        async with Supervisor(SystemClock()) as tasks:
            running = tasks.start("test", "service", partial(service.run, stop))
            await service.started.wait()
            service.bus.subscribe(published.take, kinds=("accounts", "account"))
            await published.until(lambda: node.subscribers == 1)
            yield published
            stop.set()
            await running


async def test_accounts_of_a_program_are_published_and_a_dead_slot_takes_them_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as published:
        node = published.node
        node.emit_account(KEY, PROGRAM, b"first")
        await published.until(lambda: "promote" in published.kinds(f"account:{KEY}"))
        node.emit_account(KEY, PROGRAM, b"second")
        node.kill_slot(node.ledger.head)
        await published.until(lambda: "retract" in published.kinds(f"account:{KEY}"))
        assert published.kinds(f"account:{KEY}") == ["event", "promote", "event", "retract"]
        first = next(each.body for each in published.messages if each.topic == f"account:{KEY}")
        assert KEY.encode() in first


async def test_filters_change_on_a_reload_without_a_reconnect(tmp_path: Path) -> None:
    async with serving(tmp_path) as published:
        node = published.node
        before = len(node.requests)
        text = settings(node, tmp_path, f'accounts.other.owner = ["{OTHER}"]')
        await asyncio.to_thread(published.dotenv.write_text, text)
        await published.until(lambda: len(node.requests) > before)
        node.emit_account(KEY, OTHER, b"data")
        await published.until(lambda: "event" in published.kinds(f"account:{KEY}"))
        assert node.subscribers == 1
        assert all(not request.HasField("from_slot") for request in node.requests)
