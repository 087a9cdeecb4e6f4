"""What clients do wrong is no news: the log stays short, nothing of it is a traceback, and the server goes on."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
import pytest
import uvloop

from tests.gateway.http_corpus import CASES, LIVE, LONG
from tests.gateway.running_gateway import CLOSE, TEXT, UPGRADE, Raw, RunningGateway, frame, run_gateway
from tests.gateway.test_tls import client_context, write_pair

LINES_MAX: Final = 12
"""Of the log at info level, however often clients do the same."""

ROUNDS: Final = 15

Misdeed = Callable[[RunningGateway], Awaitable[None]]
UPGRADE_WS: Final = UPGRADE.format(path="/ws?subscriptions=slots", more="").encode()


def reset(raw: Raw) -> None:
    """Leave with a reset, whatever is unread."""
    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.leave()


async def pipeline_and_leave(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(LIVE * 200)
    await asyncio.sleep(0)
    raw.leave()


async def pipeline_little_and_leave(running: RunningGateway) -> None:
    """In pieces, so that some wait while the first is answered."""
    for _ in range(4):
        raw = await Raw.connect(running.port)
        raw.send(LIVE * 10)
        await raw.read_head()
        raw.send(LIVE * 20)
        reset(raw)


async def pipeline_and_reset(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send((LIVE + b"GET /api/topics HTTP/1.1\r\nHost: x\r\n\r\n") * 100)
    await raw.read_head()
    reset(raw)


async def end_and_never_read(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(LIVE * 50)
    raw.writer.write_eof()
    await raw.read_head()
    reset(raw)


async def leave_within_a_body(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(b"POST /api/topics HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf")
    await asyncio.sleep(0)
    reset(raw)


async def every_fault(running: RunningGateway) -> None:
    for case in (*CASES[::7], *LONG[::3]):
        raw = await Raw.connect(running.port)
        raw.send(case.data)
        await asyncio.sleep(0)
        raw.leave()


async def speak_tls(running: RunningGateway) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", running.port, ssl=client_context())


async def reset_a_websocket(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(UPGRADE_WS)
    await raw.read_head()
    reset(raw)


async def leave_within_a_handshake(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(UPGRADE_WS[:40])
    await asyncio.sleep(0)
    reset(raw)


async def send_nonsense_frames(running: RunningGateway) -> None:
    raw = await Raw.open(running.port)
    raw.send(frame(TEXT, b"nonsense"), frame(TEXT, b"\xff"), frame(CLOSE, b"x"), b"\xff" * 200)
    await raw.closed()
    raw.leave()


async def leave_an_event_stream(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(b"GET /api/topics/slots/sse HTTP/1.1\r\nHost: x\r\n\r\n" + LIVE * 9)
    await raw.read_head()
    reset(raw)


async def come_from_elsewhere(running: RunningGateway) -> None:
    for origin in ("https://evil.example", "null", "\xff"):
        raw = await Raw.connect(running.port)
        raw.send(UPGRADE_WS.replace(b"Host:", f"Origin: {origin}\r\nHost:".encode("latin-1")))
        await raw.read_head()
        reset(raw)


MISDEEDS: Final[tuple[Misdeed, ...]] = (
    pipeline_and_leave,
    pipeline_little_and_leave,
    pipeline_and_reset,
    end_and_never_read,
    leave_within_a_body,
    every_fault,
    speak_tls,
    reset_a_websocket,
    leave_within_a_handshake,
    send_nonsense_frames,
    leave_an_event_stream,
    come_from_elsewhere,
)


async def goes_on(running: RunningGateway, scheme: str = "http") -> bool:
    async with httpx.AsyncClient(verify=False) as http:
        return (await http.get(f"{scheme}://127.0.0.1:{running.port}/health/live")).status_code == 200


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the log that an operator has: those of level info and above, and whatever has none."""
    return [line for line in capsys.readouterr().err.splitlines() if "[debug" not in line]


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.__name__)
async def test_repeated_misbehaviour_fills_no_log(misdeed: Misdeed, capsys: pytest.CaptureFixture[str]) -> None:
    async with run_gateway(close_s=0.5, admission=None) as running:
        capsys.readouterr()
        for _ in range(ROUNDS):
            await misdeed(running)
        assert await goes_on(running)
        await running.clients(0)
    lines = told(capsys)
    assert len(lines) <= LINES_MAX, lines
    assert not [line for line in lines if "Traceback" in line or "error" in line]


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.__name__)
def test_misbehaviour_fills_no_log_on_uvloop(misdeed: Misdeed, capsys: pytest.CaptureFixture[str]) -> None:
    """The loop of `headrace serve`: other calls on a closed connection raise there."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_repeated_misbehaviour_fills_no_log(misdeed, capsys))


async def junk(running: RunningGateway) -> None:
    for data in (LIVE, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x00" * 300, b"\x16\x03"):
        raw = await Raw.connect(running.port)
        raw.send(data)
        await asyncio.sleep(0)
        reset(raw)


async def shake_hands_and_reset(running: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=client_context())
    writer.write(LIVE * 100)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def half_close_over_tls(running: RunningGateway) -> None:
    """An end of the client's side that TLS does not announce, while an answer is on its way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=client_context())
    writer.write(LIVE * 20)
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
    writer.transport.abort()


@pytest.mark.parametrize("misdeed", [junk, shake_hands_and_reset, half_close_over_tls], ids=lambda one: one.__name__)
async def test_misbehaviour_over_tls_fills_no_log(
    tmp_path: Path, misdeed: Misdeed, capsys: pytest.CaptureFixture[str]
) -> None:
    async with run_gateway(tls=write_pair(tmp_path, "x"), request_s=5) as running:
        capsys.readouterr()
        for _ in range(ROUNDS):
            await misdeed(running)
        assert await goes_on(running, "https")
    lines = told(capsys)
    assert len(lines) <= LINES_MAX, lines
    assert not [line for line in lines if "Traceback" in line or "error" in line]


async def test_clients_are_logged_at_debug_level(capsys: pytest.CaptureFixture[str]) -> None:
    async with run_gateway() as running:
        raw = await Raw.open(running.port, "/ws?user_id=ann&subscriptions=slots")
        await raw.json()
        raw.send(frame(CLOSE, (1000).to_bytes(2, "big")))
        assert await raw.closed() == 1000
        raw.leave()
        await running.clients(0)
        lost = await Raw.open(running.port)
        await lost.json()
        reset(lost)
        await running.clients(0)
        stream = await Raw.connect(running.port)
        stream.send(b"GET /api/topics/slots/sse HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.read_head()
        await running.clients(1)
        stream.leave()
        await running.clients(0)
    lines = capsys.readouterr().err.splitlines()
    came = [line for line in lines if "client_connected" in line]
    left = [line for line in lines if "client_left" in line]
    assert ["user=ann" in line for line in came] == [True, False, False]
    assert all("address=127.0.0.1" in line for line in came + left)
    assert [f"code={code}" in line for code, line in zip((1000, 1006, 1006), left, strict=True)] == [True] * 3
    assert all("seconds=0." in line for line in left)
    assert "subscriptions=" not in "".join(came)
