"""Clients that others' generators make of the OpenAPI document compile, and read history from a running server."""

import json
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from tests.outside.tools import HERE, MODULES, NODE, needs_node_tools, run

pytestmark = pytest.mark.long
"""Generators from an index, and compilers: half a minute for each language."""

TOPIC = "trades:pump"
READ = """
import json, sys
from typing import Any
from headrace_client import AuthenticatedClient
from headrace_client.api.orders import place_order, read_order
from headrace_client.api.topics import read_history
from headrace_client.models import HistoryPage, NewOrder, OrderView, Problem

orders, history, topic = sys.argv[1:]
items: list[Any] = []
epoch = offset = None
with AuthenticatedClient(base_url=history, token="authentication is off") as client:
    while len(items) < 6:
        page = read_history.sync(topic, client=client, epoch=epoch, offset=offset, limit=2)
        assert isinstance(page, HistoryPage), page
        items += page.items
        if page.next_ is None:
            break
        epoch, offset = page.next_.epoch, page.next_.offset
    refused = read_history.sync("nope", client=client)
    assert isinstance(refused, Problem), refused
with AuthenticatedClient(base_url=orders, token="authentication is off") as client:
    placed = place_order.sync(client=client, body=NewOrder(token_in="SOL", token_out="USDC", amount=1.5))
    assert isinstance(placed, OrderView), placed
    read = read_order.sync(placed.order_id, client=client)
    assert isinstance(read, OrderView), read
print(json.dumps({
    "types": [str(item.type_) for item in items],
    "offsets": [item.offset for item in items],
    "order": read.order_id == placed.order_id,
    "refused": refused.status,
}))
"""
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "target": "es2022",
        "module": "nodenext",
        "types": ["node"],
        "skipLibCheck": True,
    },
    "files": ["history.ts"],
}


def expected(url: str) -> dict[str, object]:
    """Return what a client must print: the first messages as a plain request reads them."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        items: list[dict[str, str]] = []
        while len(items) < 6:  # the recording may be playing still
            items = http.get(f"/api/topics/{TOPIC}/history", params={"limit": 6}).json()["items"]
    return {
        "types": [item["type"] for item in items],
        "offsets": [item["offset"] for item in items],
        "order": True,
        "refused": 404,
    }


def test_python_client_compiles_and_reads_history(demo: str, recorded: str, openapi: Path, tmp_path: Path) -> None:
    generator = Path(sys.executable).with_name("openapi-python-client")
    config = tmp_path / "generator.json"
    config.write_text(json.dumps({"post_hooks": []}))
    package = tmp_path / "headrace_client"
    options = ("--meta", "none", "--output-path", package, "--config", config, "--fail-on-warning")
    run(generator, "generate", "--path", openapi, *options)
    for candles in package.glob("api/*/read_candles.py"):
        shadowed = (
            candles.read_text()
        )  # the parameter `quote` hides the function that the generator imports by that name
        assert "from urllib.parse import quote\n" in shadowed
        shadowed = shadowed.replace("import quote\n", "import quote as escape\n").replace("=quote(", "=escape(")
        candles.write_text(shadowed)
    (tmp_path / "read.py").write_text(READ)
    run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", "mypy", "read.py", package, folder=tmp_path)
    wanted = expected(recorded)
    assert json.loads(run(sys.executable, "read.py", demo, recorded, TOPIC, folder=tmp_path)) == wanted


@needs_node_tools
def test_typescript_client_compiles_and_reads_history(demo: str, recorded: str, openapi: Path, tmp_path: Path) -> None:
    run(MODULES / ".bin" / "openapi-typescript", openapi, "--output", tmp_path / "schema.d.ts")
    shutil.copy(HERE / "history.ts", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    run(MODULES / ".bin" / "tsc", folder=tmp_path)
    wanted = expected(recorded)
    assert json.loads(run(NODE, "history.js", demo, recorded, TOPIC, folder=tmp_path)) == wanted
