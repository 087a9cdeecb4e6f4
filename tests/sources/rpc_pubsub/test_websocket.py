"""What a peer can make grow, or do to the loop, besides the bytes of a message."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from headrace.sources.rpc_pubsub.websocket import PIECES_MAX, BoundedWebSocket, ConnectStraight
from tests.hostile.raw import Peer, RawServer, frame


@asynccontextmanager
async def connected(*pieces: bytes, forever: bytes = b"") -> AsyncIterator[ClientConnection]:
    async def talk(peer: Peer) -> None:
        await peer.accept()
        await peer.send_each(pieces)
        if forever:
            await peer.send_each(repeat(forever))
        await peer.hold()

    async with RawServer() as server:
        server.talk = talk
        socket = await ConnectStraight(
            f"ws://127.0.0.1:{server.port}",
            compression=None,
            ping_interval=None,
            max_size=100_000,
            close_timeout=0.1,
            create_connection=BoundedWebSocket,
        )
        yield socket
        await socket.close()


async def closed_with(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionClosed) as raised:
            while True:
                await socket.recv(decode=False)
    return raised.value.sent.code if raised.value.sent else None


@pytest.mark.parametrize("tiny", [frame(1), frame(9), frame(10), frame(1, b"{}")])
async def test_a_flood_of_tiny_frames_ends_the_connection(tiny: bytes) -> None:
    async with connected(forever=tiny * 2000) as socket:
        assert await closed_with(socket) == 1008


async def test_frames_of_the_size_that_nodes_send_are_read_however_many_come_at_once() -> None:
    message = b'{"jsonrpc":"2.0","result":24040,"id":3}'
    async with connected(frame(1, message) * 5000) as socket:
        for _ in range(5000):
            assert await socket.recv(decode=False) == message


async def test_a_few_tiny_frames_are_read() -> None:
    async with connected(*repeat(frame(9), 30), frame(1, b"{}")) as socket:
        assert await socket.recv(decode=False) == b"{}"


async def test_a_message_in_too_many_pieces_ends_the_connection_and_pings_between_do_not_reset_the_count() -> None:
    piece = frame(0, b"x" * 40, first=0) + frame(9, b"x" * 40)
    async with connected(frame(1, b"x", first=0), piece * (PIECES_MAX - 1), frame(0)) as socket:
        assert len(await socket.recv(decode=False)) == 1 + 40 * (PIECES_MAX - 1)
    async with connected(frame(1, b"x", first=0), piece * PIECES_MAX, frame(0)) as socket:
        assert await closed_with(socket) == 1009


async def test_a_peer_that_pings_and_never_reads_does_not_fill_the_memory() -> None:
    async def talk(peer: Peer) -> None:
        await peer.accept()
        peer.stop_reading()
        await peer.send_each(repeat(frame(9, b"x" * 125) * 500))

    async with RawServer() as server:
        server.talk = talk
        socket = await ConnectStraight(
            f"ws://127.0.0.1:{server.port}", ping_interval=None, close_timeout=0.1, create_connection=BoundedWebSocket
        )
        assert await closed_with(socket) == 1008
