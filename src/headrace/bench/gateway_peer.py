"""A peer in the gateway benchmark: `websockets` with `broadcast`, used as its documentation shows, on a free port."""

import contextlib
import sys

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from headrace.bench.gateway_load import Order, batches


async def serve() -> None:
    """Print the port, then serve until killed."""
    clients: set[ServerConnection] = set()

    async def session(client: ServerConnection) -> None:
        clients.add(client)
        await client.send('{"type":"subscribed"}')
        with contextlib.suppress(ConnectionClosed):
            async for text in client:
                await publish(clients, msgspec.json.decode(text, type=Order))
        clients.discard(client)

    async with serve_websockets(session, "127.0.0.1", 0, compression=None) as server:
        sys.stdout.write(f"{next(iter(server.sockets)).getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


async def publish(clients: set[ServerConnection], order: Order) -> None:
    """Send the messages that are due to every client, every millisecond."""
    async for bodies in batches(order):
        for body in bodies:
            broadcast(clients, (b"{%b}" % body).decode())


if __name__ == "__main__":
    uvloop.run(serve())
