"""`clients/js` as a package: complete, typed, the same that the server serves, and its example runs."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from headrace.model.events import Publication
from tests.gateway.running_gateway import run_gateway
from tests.sdk.clients import CLIENT_JS, NODE

EXAMPLE = Path(__file__).parents[2] / "examples" / "listen.mjs"
TRADE = b'"event_id":"e","data":{"side":"buy","base_amount":"7","mint":"M","sol":"1.5"},"chain":{}'

needs_node = pytest.mark.skipif(not NODE, reason="no node on PATH: the JavaScript example is not run")


def test_the_package_has_all_that_it_needs() -> None:
    package = json.loads((CLIENT_JS / "package.json").read_text())
    assert "dependencies" not in package
    assert sorted(package["files"]) == sorted(path.name for path in CLIENT_JS.iterdir() if path.name != "package.json")
    for path in CLIENT_JS.glob("*.js"):
        imported = re.findall(r'from "\./([^"]+)"', path.read_text())
        assert set(imported) <= set(package["files"])


def test_types_and_code_name_the_same() -> None:
    types = (CLIENT_JS / "headrace.d.ts").read_text()
    code = "".join(path.read_text() for path in CLIENT_JS.glob("*.js"))
    classes = set(re.findall(r"export class (\w+)", types))
    assert classes == set(re.findall(r"export class (\w+)", code))
    for name in classes - {"Refused", "OrderRefused"}:
        declared = set(re.findall(r"^  (?:readonly )?(\w+)[(:]", body_of(types, name), re.MULTILINE))
        there = set(re.findall(r"^  (?:get |async \*)?([a-z]\w*)(?:\(| =)", body_of(code, name), re.MULTILINE))
        there |= set(re.findall(r"^    this\.([a-z]\w*) =", body_of(code, name), re.MULTILINE))
        assert declared - {"constructor"} == there - {"constructor"}, name


def body_of(text: str, name: str) -> str:
    found = re.search(rf"^export class {name}\b.*?^}}", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


async def test_the_server_serves_the_same() -> None:
    async with (
        run_gateway() as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", verify=False) as http,
    ):
        for path in CLIENT_JS.glob("*.js"):
            assert (await http.get(f"/client/{path.name}")).content == path.read_bytes()


@needs_node
async def test_the_example_runs_in_node() -> None:
    async with run_gateway() as running:
        process = await asyncio.create_subprocess_exec(
            NODE, "--experimental-websocket", "--no-warnings", str(EXAMPLE), f"ws://127.0.0.1:{running.port}/ws",
            "trades:pump", "2", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            await running.listened_to("trades:pump")
            await running.bus.publish([Publication.on("trades:pump", "event", TRADE)] * 2)
            out, _ = await process.communicate()
    assert (process.returncode, out.decode().splitlines()) == (0, ["buy 7 of M for 1.5 SOL"] * 2)
