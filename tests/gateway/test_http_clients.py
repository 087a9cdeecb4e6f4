"""HTTP clients that we did not write: Java's, Node's, curl, and nginx before us; those on this machine."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fanout.test_framing import mirror, seen, statuses
from tests.gateway.http_corpus import LIVE
from tests.gateway.running_gateway import TEXT, UPGRADE, Raw, RunningGateway, frame, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = Path(__file__).parent / "clients"
BODIES = ('{"n":1}', '{"text":"ä"}', '{"pad":"' + "x" * 20_000 + '"}')
PATIENCE_S = 120


def program(name: str) -> str:
    """Where it is; the test is skipped where it is not."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not on this machine")
    return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(handlers=(mirror,), request_s=60) as running:
        yield running


async def run(*command: str) -> list[tuple[int, Any]]:
    """The lines of `status JSON` that a client prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    lines = [line.split(" ", 1) for line in out.decode().splitlines()]
    return [(int(status), json.loads(body)) for status, body in lines]


def bodies(answers: list[tuple[int, Any]]) -> list[tuple[int, str]]:
    return [(status, body["body"].encode("latin-1").decode()) for status, body in answers]


async def test_java_which_offers_h2c_posts_bodies(running: RunningGateway) -> None:
    answers = await run(program("java"), str(CLIENTS / "Post.java"), f"http://127.0.0.1:{running.port}/mirror", *BODIES)
    assert bodies(answers) == [(201, body) for body in BODIES]
    assert ["upgrade", "h2c"] in answers[0][1]["fields"]  # else this test shows nothing


async def test_node_posts_bodies_and_chunks(running: RunningGateway) -> None:
    answers = await run(program("node"), str(CLIENTS / "post.mjs"), f"http://127.0.0.1:{running.port}/mirror", *BODIES)
    assert bodies(answers) == [(201, body) for body in BODIES]
    assert ["transfer-encoding", "chunked"] in answers[-1][1]["fields"]


@pytest.mark.parametrize(
    "how",
    [
        ["--http2"],
        ["--http2", "--header", "Expect: 100-continue"],
        ["--http1.1", "--header", "Transfer-Encoding: chunked"],
        ["--http1.0"],
        ["--header", "Connection: Upgrade", "--header", "Upgrade: foo"],
    ],
    ids=" ".join,
)
async def test_curl_posts_bodies(running: RunningGateway, how: list[str]) -> None:
    url = f"http://127.0.0.1:{running.port}/mirror"
    for body in BODIES:
        said = ["--silent", "--show-error", "--write-out", "\n%{http_code}", "--data-binary", body]
        process = await asyncio.create_subprocess_exec(program("curl"), *said, *how, url, stdout=-1, stderr=-1)
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        answer, status = out.decode().rsplit("\n", 1)
        assert bodies([(int(status), json.loads(answer))]) == [(201, body)]


NGINX = """
daemon off; master_process off; error_log stderr warn; pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream headrace {{ server 127.0.0.1:{port}; keepalive 1; }}
  server {{
    listen unix:{folder}/nginx.sock;
    location = /metrics {{ return 403; }}
    location / {{
      proxy_pass http://headrace; proxy_http_version 1.1;
      proxy_set_header Host x; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
      proxy_request_buffering {buffering};
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(running: RunningGateway, folder: Path, *, buffering: bool) -> AsyncIterator[str]:
    """A stock nginx that hands upgrades on and keeps `/metrics` to itself; the path of its socket."""
    config = NGINX.format(folder=folder, port=running.port, buffering="on" if buffering else "off")
    (folder / "nginx.conf").write_text(config)
    command = (program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"))
    process = await asyncio.create_subprocess_exec(*command, stderr=-1)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (folder / "nginx.sock").exists():
                assert process.returncode is None, (await process.stderr.read()).decode()
                await asyncio.sleep(0.01)
        yield str(folder / "nginx.sock")
    finally:
        process.terminate()
        await process.wait()


async def through(path: str, *pieces: bytes) -> bytes:
    """What comes back through nginx until it ends the connection."""
    reader, writer = await asyncio.open_unix_connection(path)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.05)  # lets nginx hand on what it has: a piece of its own
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = LIVE.replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize("buffering", [True, False])
@pytest.mark.parametrize("upgrade", ["h2c", "foo", "websocket"])
async def test_no_request_passes_nginx_in_the_body_of_another(
    running: RunningGateway, tmp_path: Path, upgrade: str, buffering: bool
) -> None:
    head = (
        f"POST /mirror HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
        f"Content-Length: {len(METRICS)}\r\n\r\n"
    ).encode()
    async with nginx(running, tmp_path, buffering=buffering) as path:
        assert statuses(await through(path, METRICS.replace(b"Host", b"Connection: close\r\nHost"))) == (403,)
        for pieces in ((head + METRICS + LAST,), (head, METRICS, LAST), (head, METRICS[:9], METRICS[9:] + LAST)):
            answer = await through(path, *pieces)
            assert statuses(answer) == (201, 200)
            assert seen(answer)["body"].encode() == METRICS
            assert b"headrace_" not in answer


async def test_a_websocket_passes_nginx(running: RunningGateway, tmp_path: Path) -> None:
    async with nginx(running, tmp_path, buffering=True) as path:
        raw = Raw(*await asyncio.open_unix_connection(path))
        raw.send(UPGRADE.format(path="/echo", more="").encode())
        assert b" 101 " in await raw.read_head()
        raw.send(frame(TEXT, b"hello"))
        assert await raw.receive() == (TEXT, b"hello")
        raw.leave()
