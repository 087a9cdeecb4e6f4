"""permessage-deflate, where it is switched on: agreed on in the handshake, one compression for everyone."""

import json
import zlib

import pytest
import websockets

from headrace.fanout.framing import COMPRESSED_FROM, one_each_deflated
from tests.gateway.running_gateway import TEXT, Raw, frame, join, run_gateway

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


async def test_compression_is_off_by_default() -> None:
    async with run_gateway() as running:
        raw = await Raw.open(running.port, more=OFFER)
        assert b"permessage-deflate" not in raw.head


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", True),
        ("permessage-deflate; client_max_window_bits", True),
        ("permessage-deflate; server_max_window_bits=10", False),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        ("x-webkit-deflate-frame", False),
    ],
)
async def test_compression_is_agreed_on_without_context(offer: str, agreed: bool) -> None:
    async with run_gateway(compression=True) as running:
        raw = await Raw.open(running.port, more=f"Sec-WebSocket-Extensions: {offer}\r\n")
        assert b" 101 " in raw.head
        assert (b"server_no_context_takeover; client_no_context_takeover" in raw.head) is agreed


async def test_events_are_compressed_only_for_clients_that_asked() -> None:
    async with run_gateway(compression=True) as running:
        plain = await join(running, "/ws?subscriptions=slots")
        assert (await plain.json())["type"] == "subscribed"
        raws = [await join(running, "/ws?subscriptions=slots", OFFER) for _ in range(2)]
        for raw in raws:
            assert (await raw.json())["type"] == "subscribed"
        for size in (1000, 5000):
            await running.publish("slots", size=size)
            _, expected = await plain.receive()
            for raw in raws:
                first, payload = await compressed(raw)
                assert first == 0xC1
                assert inflated(payload) == expected
                assert len(payload) < len(expected)
        await running.publish("slots")
        _, expected = await plain.receive()
        assert [await raw.receive() for raw in raws] == [(TEXT, expected)] * 2  # too short to gain by it


async def compressed(raw: Raw) -> tuple[int, bytes]:
    """The first byte and the payload of a frame with a length below 64 KiB."""
    first, size = await raw.reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await raw.reader.readexactly(2), "big")
    return first, await raw.reader.readexactly(size)


async def test_commands_may_come_compressed() -> None:
    async with run_gateway(compression=True) as running:
        raw = await join(running, more=OFFER)
        deflater = zlib.compressobj(wbits=-15)
        command = json.dumps({"type": "subscribe", "id": 1, "data": {"topic": "slots"}}).encode()
        raw.send(frame(TEXT, (deflater.compress(command) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=4))
        assert (await raw.json())["type"] == "subscribed"


async def test_the_websockets_client_reads_it() -> None:
    async with run_gateway(compression=True) as running:
        url = f"ws://127.0.0.1:{running.port}/ws?subscriptions=slots&batch=1"
        async with websockets.connect(url, compression="deflate") as client:
            assert client.protocol.extensions
            await client.recv()
            await client.recv()
            await running.publish("slots", 20, size=500)
            offsets: list[str] = []
            while len(offsets) < 20:
                offsets += [json.loads(line)["offset"] for line in str(await client.recv()).split("\n")]
            assert offsets == [str(n) for n in range(1, 21)]


def test_each_message_stands_alone() -> None:
    payloads = [b"x" * COMPRESSED_FROM, b"short", b"x" * COMPRESSED_FROM]
    first, second, third = (one_each_deflated([payload]) for payload in payloads)
    assert first == third
    assert second == b"\x81\x05short"
    assert one_each_deflated(payloads) == first + second + third
