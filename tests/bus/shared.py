"""Several buses on one server, each as the bus of another process, with what each of their clients received."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from headrace.bus import Change, Lane
from headrace.bus.redis import RedisBus, RedisBusSettings
from headrace.bus.redis_writer import RedisWriter
from headrace.model.events import Message, Position, Publication
from headrace.runtime.clock import SystemClock
from tests.contracts.contexts import lent

PATIENCE_S = 60.0


class Process:
    """A bus and all that its sink got."""

    def __init__(self, bus: RedisBus) -> None:
        self.bus = bus
        self.got: list[Message] = []
        self.changes: list[Change] = []
        self.log: list[Message | Change] = []
        bus.subscribe(self._take, kinds=None, changed=self._changed)

    def _take(self, messages: Sequence[Message]) -> None:
        self.got.extend(messages)
        self.log.extend(messages)

    def _changed(self, change: Change) -> None:
        self.changes.append(change)
        self.log.append(change)

    @property
    def bodies(self) -> list[str]:
        return [message.body.decode() for message in self.got]

    async def writer(self, lane: Lane = "ingest", token: int | None = None) -> RedisWriter:
        return await self.bus.claim(lane, token)


class Processes:
    """Opens buses with one prefix; each is closed at the end, or with `close`."""

    def __init__(self, stack: AsyncExitStack, url: str, prefix: str, settings: dict[str, Any]) -> None:
        self._stack, self._settings = stack, settings | {"redis_url": url, "redis_prefix": prefix}

    async def open(self, kind: type[RedisBus] = RedisBus, **settings: Any) -> Process:
        context = await self._stack.enter_async_context(lent(SystemClock()))
        bus = await kind.open(RedisBusSettings(**self._settings | settings), context)
        self._stack.push_async_callback(bus.close)
        return Process(bus)


class Link:
    """A way to a server's socket that can be cut."""

    def __init__(self, path: str) -> None:
        self._path, self._open = path, True
        self._ends: set[asyncio.StreamWriter] = set()
        self.carrying = 0

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._open = False
        for end in self._ends:
            end.close()

    def mend(self) -> None:
        self._open = True

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways until one end closes."""
        if not self._open:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        self._ends |= {writer, far_writer}
        self.carrying += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, far_writer))
                tasks.create_task(self._carry(far_reader, writer))
        finally:
            self._ends -= {writer, far_writer}
            for end in (writer, far_writer):
                end.close()
            self.carrying -= 1

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def link_to(path: str) -> AsyncIterator[tuple[Link, str]]:
    """A link to the server at a socket, and the link's URL."""
    link, place = Link(path), f"{path}{secrets.token_hex(4)}"
    listener = await asyncio.start_unix_server(link.connect, place)
    try:
        yield link, f"unix://{place}"
    finally:
        link.cut()
        listener.close()
        await listener.wait_closed()
        await until(lambda: not link.carrying)


@asynccontextmanager
async def processes(url: str, prefix: str, **settings: Any) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes(stack, url, prefix, settings)


async def say(writer: RedisWriter, *items: str) -> Sequence[Position]:
    """Publish "topic/body" items as one batch, and wait for the answer."""
    publications = []
    for item in items:
        topic, _, body = item.partition("/")
        publications.append(Publication.on(topic, "event", body.encode()))
    async with asyncio.timeout(PATIENCE_S):
        return await writer.publish(writer.batch(publications, positions=True))


async def until(holds: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def do(action: Callable[..., object], *arguments: object) -> None:
    """Do something to the server beside the loop."""
    await asyncio.to_thread(action, *arguments)
