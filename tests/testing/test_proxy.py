"""The proxy cuts where it is told to."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.testing.proxy import TcpProxy

TEXT = bytes(range(256)) * 100


@asynccontextmanager
async def proxied() -> AsyncIterator[TcpProxy]:
    """A proxy before a server that sends TEXT and then echoes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(TEXT)
            while chunk := await reader.read(100):
                writer.write(chunk)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


async def read_all(proxy: TcpProxy) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    received = b""
    try:
        while chunk := await reader.read(10_000):
            received += chunk
    except OSError:
        pass
    finally:
        writer.transport.abort()
    return received


async def test_bytes_pass_in_both_directions() -> None:
    async with proxied() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.readexactly(len(TEXT)) == TEXT
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert proxy.passed == len(TEXT) + 5
        writer.transport.abort()


@pytest.mark.parametrize("count", [1, 100, 9999])
async def test_a_connection_never_brings_a_byte_more_than_its_cut(count: int) -> None:
    async with proxied() as proxy:
        proxy.cut_next_after(count)
        assert len(await read_all(proxy)) <= count
        assert proxy.passed == count
        proxy.cut_after(count)
        assert len(await read_all(proxy)) <= count
        assert proxy.passed == 2 * count


async def test_refused_connections_bring_nothing() -> None:
    async with proxied() as proxy:
        proxy.refuse = True
        assert await read_all(proxy) == b""


async def test_stalled_bytes_wait_and_then_come() -> None:
    async with proxied() as proxy:
        proxy.stalled = True
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)
        proxy.stalled = False
        assert await reader.readexactly(len(TEXT)) == TEXT
        writer.transport.abort()


async def test_throttled_and_delayed_bytes_arrive_whole() -> None:
    async with proxied() as proxy:
        proxy.delay_s, proxy.bytes_per_s = 0.001, 10_000_000.0
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.readexactly(len(TEXT)) == TEXT
        writer.transport.abort()


async def test_a_server_that_is_away_closes_the_client() -> None:
    async with TcpProxy("127.0.0.1", 1) as proxy:
        assert await read_all(proxy) == b""


@pytest.mark.parametrize("turns", range(8))
def test_a_connection_that_comes_as_the_proxy_ends_is_closed(turns: int, recwarn: pytest.WarningsRecorder) -> None:
    """Whichever turn of the loop it is: no connection is left behind."""

    with socket.socket() as visitor:

        async def come_and_end() -> None:
            async with TcpProxy("127.0.0.1", 1) as proxy:
                visitor.connect(("127.0.0.1", proxy.port))
                for _ in range(turns):
                    await asyncio.sleep(0)

        asyncio.run(come_and_end())
        gc.collect()
        assert not recwarn.list
        visitor.settimeout(60)
        with contextlib.suppress(ConnectionError):
            assert visitor.recv(1) == b""
