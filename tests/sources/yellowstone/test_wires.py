"""Test what lies between a node and a receiver: TLS, proxies that cut and stall at each byte, keepalive, no HTTP/2."""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from headrace.runtime.clock import SystemClock
from headrace.sources.yellowstone import YellowstoneSettings
from headrace.sources.yellowstone.endings import WireEnd
from headrace.sources.yellowstone.receiver import OwnWire
from headrace.sources.yellowstone.source import RECEIVERS
from headrace.testing.ledger import made_up_key
from tests.gateway.test_tls import write_pair
from tests.sources.yellowstone.rig import ACCOUNTS, EVERY_RECEIVER, LOGS, PROGRAM, rig

every_receiver = pytest.mark.parametrize("receiver", EVERY_RECEIVER)


def credentials(folder: Path) -> tuple[grpc.ServerCredentials, str]:
    pair = write_pair(folder, "node")
    key, certificate = Path(pair.key_file).read_bytes(), Path(pair.cert_file).read_bytes()
    return grpc.ssl_server_credentials([(key, certificate)]), pair.cert_file


@every_receiver
async def test_tls_is_read_where_the_certificate_is_trusted(receiver: str, tmp_path: Path) -> None:
    server, ca_file = credentials(tmp_path)
    options = {"credentials": server}
    async with rig(receiver=receiver, ca_file=ca_file, host="localhost", node_options=options) as made:
        landed = made.node.emit_transaction([PROGRAM])
        await made.until(lambda: landed.signature in made.signatures())
    async with rig(
        receiver=receiver, host="localhost", node_options=options, start=False, connect_timeout_s=0.5
    ) as made:
        await made.until(lambda: made.count("source_reconnects_total", source="yellowstone-0", reason="refused") > 0)


@pytest.mark.parametrize("begin", range(0, 120, 12))
async def test_connection_that_is_cut_anywhere_loses_nothing(begin: int) -> None:
    async with rig(ACCOUNTS, receiver="own") as made:
        sent = 0
        for cut in range(begin, begin + 12, 3):
            for _ in range(2):
                made.advance()
            made.proxy.cut_after(cut)
            for _ in range(3):
                made.node.emit_account(made_up_key("one"), PROGRAM, b"%d" % sent)
                sent += 1
            made.advance()
            newest = b"%d" % (sent - 1)
            await made.until(lambda newest=newest: newest in made.accounts(), flowing=True)  # type: ignore[misc]
        assert made.accounts() == [b"%d" % number for number in range(sent)]
        assert made.gaps(ACCOUNTS) == []
        assert made.proxy.connections > 1


@every_receiver
async def test_stalled_proxy_is_given_up_and_nothing_is_lost(receiver: str) -> None:
    async with rig(receiver=receiver, stall_s=0.3) as made:
        made.proxy.stalled = True
        landed = made.node.emit_transaction([PROGRAM])
        made.advance()
        reasons = ("silent", "head_stands")
        await made.until(
            lambda: any(made.count("source_reconnects_total", source="yellowstone-0", reason=each) for each in reasons)
        )
        made.proxy.stalled = False
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)
        assert made.gaps(LOGS) == []


async def test_node_that_does_not_answer_pings_is_given_up() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # empty settings
        with contextlib.suppress(OSError):
            await reader.read(-1)
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    wire = await OwnWire.open(url, YellowstoneSettings(keepalive_s=1.0, keepalive_timeout_s=1.0), SystemClock())
    async with asyncio.timeout(10):
        await wire.run()
        with pytest.raises(WireEnd, match="keepalive"):
            await wire.receive()
        await wire.close()
        await gone.wait()
    server.close()
    await server.wait_closed()


@every_receiver
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, b""], ids=["http/1", "nul", "close"]
)
async def test_server_that_speaks_no_http2_is_refused(receiver: str, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = YellowstoneSettings(connect_timeout_s=0.5)
    with pytest.raises(WireEnd):
        await RECEIVERS[receiver](f"http://127.0.0.1:{port}", settings, SystemClock())  # type: ignore[index]
    server.close()
    await server.wait_closed()


@every_receiver
async def test_no_server_is_refused(receiver: str) -> None:
    settings = YellowstoneSettings(connect_timeout_s=0.5)
    with pytest.raises(WireEnd) as caught:
        await RECEIVERS[receiver]("http://127.0.0.1:1", settings, SystemClock())  # type: ignore[index]
    assert caught.value.status == "UNAVAILABLE"
