"""Measures how many PubSub notifications per second the RPC source accepts, from bytes and over a loopback socket."""

import argparse
import asyncio
import platform
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pybase64
import uvloop
import zstandard
from websockets.asyncio.server import ServerConnection, serve

from headrace.model.updates import AnyUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.sources.rpc_pubsub import RpcPubSub, RpcPubSubSettings
from headrace.sources.rpc_pubsub.frames import Stamp, read
from headrace.sources.subscriptions import ChainSubscription, Kind
from headrace.testing.ledger import made_up_key

PUBSUB: Final = Path(__file__).parents[3] / "tests" / "data" / "mainnet" / "pubsub"
_ROUNDS: Final = 5
_KEY: Final = made_up_key("bench")


def frames(kind: str, subscription: int) -> list[bytes]:
    """Return the recorded notifications of `kind`, compact as from a node, all with the same subscription id."""
    lines = (PUBSUB / f"{kind}Notification.projected.jsonl").read_text().splitlines()
    decoded: list[Any] = [msgspec.json.decode(line) for line in lines]
    for each in decoded:
        each["params"]["subscription"] = subscription
    return [msgspec.json.encode(each) for each in decoded]


def zstd_frames(messages: list[bytes]) -> list[bytes]:
    """Return the same accounts in `base64+zstd`, compressed as a stream, as by a node."""
    packed = []
    for message in messages:
        decoded: Any = msgspec.json.decode(message)
        account = decoded["params"]["result"]["value"]["account"]
        packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        data = packer.compress(pybase64.b64decode(account["data"][0])) + packer.flush()
        account["data"] = [pybase64.b64encode_as_string(data), "base64+zstd"]
        packed.append(msgspec.json.encode(decoded))
    return packed


def parse_rate(kind: Kind, messages: list[bytes], count: int) -> float:
    """Return messages per second through `read`, in the best of several rounds."""
    active, stamp = {1: ChainSubscription(kind, _KEY)}, Stamp("bench", "processed")
    laps = max(1, count // len(messages))
    best = 0.0
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(laps):
            for message in messages:
                read(message, active, stamp, 0)
        best = max(best, laps * len(messages) / (time.perf_counter() - started))
    return best


async def socket_rate(kind: Kind, messages: list[bytes], count: int) -> float:
    """Return messages per second from a loopback WebSocket to the source's outlet.

    The sender uses the same event loop and core. Its frames are made beforehand, and many are sent in one write, so
    that mainly the receiver is measured.
    """
    laps = max(1, count // len(messages))
    block = b"".join(_server_frame(message) for message in messages)
    go = asyncio.Event()

    async def serve_one(connection: ServerConnection) -> None:
        async for text in connection:
            request: Any = msgspec.json.decode(text)
            await connection.send(msgspec.json.encode({"id": request["id"], "result": request["id"] - 1}), text=True)
            if request["id"] == 2:
                break
        await go.wait()
        for _ in range(laps):
            connection.transport.write(block)
            await (await connection.ping())  # at most one block is in flight
        await connection.wait_closed()

    async with serve(serve_one, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = RpcPubSubSettings(ws_urls=(url,), subscriptions=(f"{kind}:{_KEY}",), stall_s=600)
        source = RpcPubSub(settings, clock=SystemClock(), metrics=Metrics(), health=Health())
        outlet: Channel[AnyUpdate] = Channel(10_000)
        async with Supervisor(SystemClock()) as tasks:
            tasks.start("bench", "source", partial(source.run, outlet))
            go.set()
            wanted, got = laps * len(messages), len(await outlet.get_batch())
            started, before = time.perf_counter(), got
            while got < wanted:
                got += len(await outlet.get_batch())
            rate = (got - before) / (time.perf_counter() - started)
            source.stop()
    return rate


def _server_frame(payload: bytes) -> bytes:
    """Return an unmasked, unfragmented text frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    return (b"\x81\x7e" + size.to_bytes(2) if size < 65_536 else b"\x81\x7f" + size.to_bytes(8)) + payload


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Parse and receive `count` messages of each kind."""
    accounts = frames("program", 1)
    inputs: dict[str, tuple[Kind, list[bytes]]] = {
        "logs": ("logs", frames("logs", 1)),
        "accounts base64": ("program", accounts),
        "accounts base64+zstd": ("program", zstd_frames(accounts)),
    }
    rows = {}
    for name, (kind, messages) in inputs.items():
        size = sum(map(len, messages)) // len(messages)
        received = uvloop.run(socket_rate(kind, messages, args.count))
        parsed = parse_rate(kind, messages, args.count)
        rows[name] = {"message_bytes": size, "parsed_per_s": round(parsed), "received_per_s": round(received)}
    return {
        "bench": "source",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "count": args.count,
        "rates": rows,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=50_000, help="messages of each kind")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    add_arguments(arguments)
    sys.stdout.write(msgspec.json.encode(run(arguments.parse_args())).decode() + "\n")
