"""RFC 6455 by raw bytes: what a server must take, refuse and answer."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import websockets

from tests.gateway.running_gateway import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Raw,
    RunningGateway,
    frame,
    run_gateway,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(request_s=5) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def echo(running: RunningGateway) -> AsyncIterator[Raw]:
    raw = await Raw.open(running.port, "/echo")
    yield raw
    raw.leave()


def code(value: int) -> bytes:
    return value.to_bytes(2, "big")


async def test_handshake_answers_the_key_of_the_rfc(echo: Raw) -> None:
    assert echo.head.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in echo.head
    assert b"server:" not in echo.head.lower()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_payloads_of_every_length_form(echo: Raw, size: int, opcode: int) -> None:
    payload = b"a" * size
    echo.send(frame(opcode, payload))
    assert await echo.receive() == (opcode, payload)


@pytest.mark.parametrize("step", [1, 7, 997])
async def test_a_frame_may_arrive_in_any_pieces(echo: Raw, step: int) -> None:
    payload = b"*" * (50 if step == 1 else 5000)
    data = frame(TEXT, payload)
    for start in range(0, len(data), step):
        echo.send(data[start : start + step])
        await asyncio.sleep(0)
    assert await echo.receive() == (TEXT, payload)


async def test_pings_are_answered_in_order_and_pongs_ignored(echo: Raw) -> None:
    payloads = [b"", b"x" * 125, os.urandom(5), b"3", b"4"]
    echo.send(*(frame(PING, payload) for payload in payloads), frame(PONG, b"unasked"), frame(PING, b"last"))
    assert [await echo.receive() for _ in range(6)] == [(PONG, payload) for payload in [*payloads, b"last"]]


async def test_fragments_with_a_ping_between(echo: Raw) -> None:
    echo.send(frame(TEXT, b"fr", fin=False), frame(PING, b"p"), frame(0, b"", fin=False), frame(0, b"ag"))
    assert [await echo.receive(), await echo.receive()] == [(PONG, b"p"), (TEXT, b"frag")]
    echo.send(frame(BINARY, b"", fin=False), frame(0))
    assert await echo.receive() == (BINARY, b"")


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("long control frame", frame(PING, b"a" * 126)),
        ("fragmented control frame", frame(PING, b"x", fin=False)),
        ("continuation of nothing", frame(0, b"x")),
        ("new message inside another", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")),
        ("unmasked", frame(TEXT, b"x", masked=False)),
        ("16-bit length of a short payload", b"\x81\xfe\x00\x05abcd12345"),
        ("64-bit length of a short payload", b"\x81\xff" + (200).to_bytes(8, "big") + b"abcd"),
        ("close with one byte", frame(CLOSE, b"x")),
        ("close too long", frame(CLOSE, code(1000) + b"a" * 124)),
        *((f"reserved bits {rsv}", frame(TEXT, b"x", rsv=rsv)) for rsv in range(1, 8)),
        *((f"opcode {opcode}", frame(opcode, b"x")) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(
            (f"close code {value}", frame(CLOSE, code(value)))
            for value in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
        ),
    ],
)
async def test_protocol_errors_end_with_1002(echo: Raw, what: str, bad: bytes) -> None:
    echo.send(bad)
    assert await echo.receive() == (CLOSE, code(1002)), what
    assert (await echo.receive())[0] == "eof"


@pytest.mark.parametrize("text", ["κόσμε", "\U0010ffff", "\x00", "￾", "ß-µ"])
async def test_utf8_may_be_split_anywhere(echo: Raw, text: str) -> None:
    data = text.encode()
    pieces = [frame(TEXT if i == 0 else 0, data[i : i + 1], fin=i == len(data) - 1) for i in range(len(data))]
    echo.send(frame(TEXT, data), *pieces)
    assert [await echo.receive(), await echo.receive()] == [(TEXT, data), (TEXT, data)]


@pytest.mark.parametrize(
    "bad",
    [
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xc0\xaf"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, b"\xf4\x90\x80\x80"),
        frame(TEXT, b"\xe1\xbd"),
        frame(TEXT, b"\xce\xba", fin=False) + frame(0, b"\xf4\x90"),
        frame(TEXT, b"\xff", fin=False),
        frame(CLOSE, b"\x03\xe8\xff\xff"),
    ],
)
async def test_bad_utf8_ends_with_1007_at_once(echo: Raw, bad: bytes) -> None:
    echo.send(bad)
    assert await echo.receive() == (CLOSE, code(1007))
    assert (await echo.receive())[0] == "eof"


async def test_binary_may_be_anything(echo: Raw) -> None:
    echo.send(frame(BINARY, b"\xff\xfe"))
    assert await echo.receive() == (BINARY, b"\xff\xfe")


@pytest.mark.parametrize("value", [1000, 1001, 1002, 1003, 1007, 1011, 3000, 3999, 4000, 4999])
async def test_a_close_is_echoed_and_the_stream_ends(echo: Raw, value: int) -> None:
    echo.send(frame(CLOSE, code(value) + b"bye"), frame(TEXT, b"late"))
    assert await echo.receive() == (CLOSE, code(value) + b"bye")
    assert (await echo.receive())[0] == "eof"


async def test_an_empty_close_is_echoed(echo: Raw) -> None:
    echo.send(frame(CLOSE))
    assert await echo.receive() == (CLOSE, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xff" + (1_048_577).to_bytes(8, "big") + b"abcd",
        b"".join([frame(BINARY, b"a" * 300_000, fin=False), *[frame(0, b"a" * 300_000, fin=False)] * 4]),
    ],
    ids=["one frame, by its header alone", "fragments that add up"],
)
async def test_oversize_messages_end_with_1009(echo: Raw, data: bytes) -> None:
    echo.send(data)
    assert await echo.receive() == (CLOSE, code(1009))


async def test_a_session_frame_over_the_limit_ends_with_1009(running: RunningGateway) -> None:
    raw = await Raw.open(running.port)
    await raw.json()
    raw.send(frame(TEXT, b" " * 65_537))
    assert await raw.closed() == 1009
    raw.leave()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (UPGRADE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "abc"), 400),
        (UPGRADE.replace("Version: 13", "Version: 8"), 400),
        (UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (UPGRADE.replace("GET", "POST"), 405),
        (UPGRADE.replace("Host: test\r\n", ""), 400),
        (UPGRADE.replace("Host: test", "Host: test\r\nHost: other"), 400),
        (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (UPGRADE.replace("{path}", "/nope"), 404),
        (UPGRADE.replace("{path}", "/ws/"), 426),
        (UPGRADE.replace("{path}", "/ws?token=abc"), 401),
        (UPGRADE.replace("{path}", "/ws?ticket=abc"), 401),
        (UPGRADE.replace("{more}", "Sec-WebSocket-Protocol: stream.v1, jwt.abc\r\n"), 401),
        (UPGRADE.replace("{path}", "/ws?user_id=1&user_id=2"), 400),
        (UPGRADE.replace("{path}", "/ws?user_id="), 400),
        (UPGRADE.replace("{path}", "/ws?user_id=%00"), 400),
        (UPGRADE.replace("{path}", "/ws?user_id=%ff"), 400),
        (UPGRADE.replace("{path}", "/ws?subscriptions=" + "slots," * 200), 400),
        (UPGRADE.replace("{path}", "/ws?subscriptions=slots,orders:%25ff"), 400),
        (UPGRADE.replace("{more}", "X-Large: " + "a" * 20_000 + "\r\n"), 431),
    ],
)
async def test_bad_handshakes_get_a_problem(running: RunningGateway, request_text: str, status: int) -> None:
    raw = await Raw.connect(running.port)
    raw.send(request_text.replace("{path}", "/ws").replace("{more}", "").encode())
    head = await raw.read_head()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head
    assert b'"status":%d' % status in await raw.reader.read(1000)
    raw.leave()


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade, keep-alive"])
async def test_connection_header_forms_of_browsers(running: RunningGateway, connection: str) -> None:
    raw = await Raw.connect(running.port)
    raw.send(UPGRADE.format(path="/ws", more="").replace("keep-alive, Upgrade", connection).encode())
    assert b" 101 " in await raw.read_head()
    raw.leave()


async def test_a_frame_behind_the_handshake_in_one_segment(running: RunningGateway) -> None:
    raw = await Raw.open(running.port, "/echo", behind=frame(TEXT, b"early"))
    assert await raw.receive() == (TEXT, b"early")
    raw.leave()


async def test_upgrade_on_a_kept_alive_connection(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await raw.read_head()
    assert b" 200 " in head
    await raw.reader.readexactly(len(b'{"status":"live"}'))
    raw.send(UPGRADE.format(path="/echo", more="").encode())
    assert b" 101 " in await raw.read_head()
    raw.leave()


async def test_an_upgrade_behind_an_unanswered_request_waits_for_its_answer(running: RunningGateway) -> None:
    raw = await Raw.connect(running.port)
    upgrade = UPGRADE.format(path="/echo", more="").encode()
    raw.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" + upgrade + frame(TEXT, b"early"))
    assert b" 200 " in await raw.read_head()
    await raw.reader.readexactly(len(b'{"status":"live"}'))
    assert b" 101 " in await raw.read_head()
    assert await raw.receive() == (TEXT, b"early")
    raw.leave()


async def test_the_websockets_client_gets_along(running: RunningGateway) -> None:
    async with websockets.connect(
        f"ws://127.0.0.1:{running.port}/ws", subprotocols=[websockets.Subprotocol("stream.v1")], compression="deflate"
    ) as client:
        assert client.subprotocol == "stream.v1"
        assert client.protocol.extensions == []
        assert '"type":"welcome"' in str(await client.recv())
        await (await client.ping())
    assert client.close_code == 1000


async def test_a_flood_of_tiny_frames_is_cut_off(running: RunningGateway) -> None:
    raw = await Raw.open(running.port)
    raw.send(frame(PING) * 5000)
    assert await raw.closed() == 4013
    raw.leave()
