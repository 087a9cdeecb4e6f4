"""A server that speaks as much WebSocket as an attack needs, and then bytes that no library would send."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Self, TypeAlias

_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

Talk: TypeAlias = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection. `send` raises OSError when it has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self) -> bytes:
        """The head of the HTTP request."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def accept(self, *headers: str, key: bytes | None = None) -> None:
        """Complete the handshake, with more headers and, for a wrong answer, another key."""
        head = await self.request()
        given = next(
            line.split(b":")[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        token = base64.b64encode(hashlib.sha1((key or given) + _MAGIC, usedforsecurity=False).digest()).decode()
        lines = [
            "HTTP/1.1 101 x",
            "upgrade: websocket",
            "connection: upgrade",
            f"sec-websocket-accept: {token}",
            *headers,
        ]
        await self.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_each(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            await self.send(piece)
            await asyncio.sleep(0)

    def stop_reading(self) -> None:
        """Take nothing any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def hold(self) -> None:
        """Take what comes and say nothing, until the other side leaves."""
        while await self._reader.read(65_536):
            pass


class RawServer:
    """Use as `async with RawServer() as server`; `talk` is what it does with each connection, which then ends."""

    def __init__(self) -> None:
        self.talk: Talk = Peer.hold
        self._writers: set[asyncio.StreamWriter] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._empty.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._empty.clear()
        try:
            await self.talk(Peer(reader, writer))
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, StopIteration):
            pass  # the other side has left, or asked something else
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            if not self._writers:
                self._empty.set()


def frame(opcode: int, payload: bytes = b"", *, first: int = 0x80, length: int | None = None, mask: int = 0) -> bytes:
    """A WebSocket frame; `first` holds FIN and the reserved bits, `length` what it claims to hold."""
    size = len(payload) if length is None else length
    if size < 126:
        return bytes([first | opcode, mask | size]) + payload
    if size < 65_536:
        return bytes([first | opcode, mask | 126]) + struct.pack("!H", size) + payload
    return bytes([first | opcode, mask | 127]) + struct.pack("!Q", size) + payload
