"""A TCP proxy on loopback that can refuse, cut at a byte, stall, delay and throttle connections."""

import asyncio
import socket
from collections import deque
from functools import partial
from typing import Self

from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.supervise import Supervisor

_CHUNK = 65_536
_TURNS_TO_BEGIN = 5
"""Number of turns of the event loop after which an accepted connection is registered and can be ended."""


class TcpProxy:
    """A proxy in front of a server: connect to `port`. Use as `async with TcpProxy("127.0.0.1", port) as proxy`.

    Faults are attributes and methods, and may change at any time: `refuse` (accept and close at once), `stalled` (bytes
    wait, the sockets stay open), `delay_s` and `bytes_per_s` (towards the client), `cut_after`, `cut`. `waiting_bytes`
    is roughly the number of bytes that can wait towards the client before the server notices; by default the system
    decides.
    """

    def __init__(self, host: str, port: int, *, clock: Clock | None = None, waiting_bytes: int | None = None) -> None:
        self.upstream = (host, port)
        """The server to which new connections go."""
        self._waiting_bytes = waiting_bytes
        self._clock = clock or SystemClock()
        self.refuse = False
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.port = 0
        self.connections = 0
        """Number of connections accepted so far."""
        self.passed = 0
        """Number of bytes sent to clients so far."""
        self._cut_at: int | None = None
        self._cuts: deque[int] = deque()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pipes: set[_Pipe] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for listener in self._server.sockets:  # closing the server at once would lose a connection just accepted
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(_TURNS_TO_BEGIN):
            await asyncio.sleep(0)
        self._server.close()
        self._flowing.set()
        self.cut()
        await self._empty.wait()
        await self._server.wait_closed()

    @property
    def upstream_ports(self) -> set[int]:
        """The local ports of the connections to the server, by which the server identifies them."""
        return {pipe.writer.get_extra_info("sockname")[1] for pipe in self._pipes} - {self.port}

    @property
    def stalled(self) -> bool:
        """Whether bytes wait, in both directions."""
        return not self._flowing.is_set()

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        if stalled:
            self._flowing.clear()
        else:
            self._flowing.set()

    def cut(self) -> None:
        """Reset every connection now."""
        for pipe in list(self._pipes):
            pipe.abort()

    def cut_after(self, count: int) -> None:
        """Reset all connections after exactly `count` more bytes towards clients."""
        self._cut_at = self.passed + count

    def cut_next_after(self, *counts: int) -> None:
        """Reset each of the next connections after its count of bytes towards the client, in the order of `counts`."""
        self._cuts.extend(counts)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        client = _Pipe(reader, writer, self._cuts.popleft() if self._cuts else None)
        self._pipes.add(client)
        self._empty.clear()
        try:
            if not self.refuse:
                await self._join(client)
        finally:
            self._pipes.discard(client)
            client.abort()
            if not self._pipes:
                self._empty.set()

    async def _join(self, client: "_Pipe") -> None:
        try:
            reader, writer = await self._connect()
        except OSError:
            return
        server = _Pipe(reader, writer, None)
        self._pipes.add(server)
        try:
            async with Supervisor(self._clock) as tasks:
                pump_up = partial(self._pump, client, server, tasks, towards_client=False)
                tasks.start("proxy", "up", pump_up)
                tasks.start("proxy", "down", partial(self._pump, server, client, tasks, towards_client=True))
        finally:
            self._pipes.discard(server)
            server.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._waiting_bytes is None:
            return await asyncio.open_connection(*self.upstream)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._waiting_bytes)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, self.upstream)
            return await asyncio.open_connection(sock=connection, limit=self._waiting_bytes)
        except BaseException:
            connection.close()
            raise

    async def _pump(self, source: "_Pipe", sink: "_Pipe", tasks: Supervisor, *, towards_client: bool) -> None:
        try:
            while chunk := await source.reader.read(_CHUNK):
                await self._flowing.wait()
                if towards_client:
                    await self._clock.sleep(self.delay_s + (len(chunk) / self.bytes_per_s if self.bytes_per_s else 0.0))
                    chunk = self._shorten(sink, chunk)
                sink.writer.write(chunk)
                await sink.writer.drain()
                if sink.cut_at == 0 or self._cut_at == self.passed:
                    break
        except OSError:
            pass  # a reset also ends the connection
        if self._cut_at is not None and self._cut_at == self.passed:
            self._cut_at = None
            self.cut()
        tasks.cancel()

    def _shorten(self, sink: "_Pipe", chunk: bytes) -> bytes:
        """Return the part of `chunk` that may still pass."""
        if self._cut_at is not None:
            chunk = chunk[: self._cut_at - self.passed]
        if sink.cut_at is not None:
            chunk = chunk[: sink.cut_at]
            sink.cut_at -= len(chunk)
        self.passed += len(chunk)
        return chunk


class _Pipe:
    """One end of a connection: its streams, and the number of bytes that may still be sent to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_at: int | None) -> None:
        self.reader, self.writer, self.cut_at = reader, writer, cut_at

    def abort(self) -> None:
        self.writer.transport.abort()
