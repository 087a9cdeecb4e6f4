"""Orders that are placed without the router get the answers of the router, byte for byte."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.settings import AdmissionSettings
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.orders.store.sqlite import SqliteStore
from headrace.runtime.clock import SystemClock
from tests.gateway.issuer import HS256, token
from tests.gateway.running_gateway import PATIENCE_S, run_gateway

ORDER: Final = '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}'
JSON: Final = "Content-Type: application/json"
VARIES: Final = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}|date: [^\r]*|\"(createdAt|updatedAt)\":[0-9]+|\?other=1"
)
"""Ids and times, which are others in each answer."""

REQUESTS: Final = {
    "an order": (ORDER, [JSON]),
    "an order under a key": (ORDER, [JSON, "Idempotency-Key: {nth}"]),
    "the same key again": (ORDER, [JSON, "Idempotency-Key: same"]),
    "the key of another order": (ORDER.replace("1.5", "2"), [JSON, "Idempotency-Key: same"]),
    "two keys": (ORDER, [JSON, "Idempotency-Key: a", "Idempotency-Key: b"]),
    "a key that is none": (ORDER, [JSON, "Idempotency-Key: \xe9"]),
    "no type": (ORDER, []),
    "another type": (ORDER, ["Content-Type: text/plain"]),
    "a type with a charset": (ORDER, ["Content-Type: application/JSON; charset=utf-8"]),
    "no JSON": ("x", [JSON]),
    "no body": ("", [JSON]),
    "a list": ("[]", [JSON]),
    "faults in all fields": ('{"tokenIn":1,"slippage":2}', [JSON]),
    "an order of another user": (ORDER[:-1] + ',"userId":"43"}', [JSON]),
    "another host": (ORDER, [JSON, "Host: evil.example"]),
    "a page of another site": (ORDER, [JSON, "Origin: https://evil.example"]),
    "a page that is allowed": (ORDER, [JSON, "Origin: https://good.example"]),
    "no credential": (ORDER, [JSON, "No-Authorization: yes"]),
    "a wrong credential": (ORDER, [JSON, "Authorization: Bearer nonsense"]),
    "two credentials": (ORDER, [JSON, "Authorization: Bearer a", "Authorization: Bearer b"]),
    "a body that is too large": (ORDER + " " * 300_000, [JSON]),
}


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    store = await SqliteStore.at(str(tmp_path / "orders.db"), SystemClock())
    yield Intake(store, ExecutionSettings(), SystemClock())
    await store.close()


@pytest.mark.parametrize("auth", [None, HS256], ids=["open", "with tokens"])
@pytest.mark.parametrize("path", ["/api/orders/execute", "/execute"])
async def test_every_answer_is_the_one_of_the_router(intake: Intake, auth: AuthSettings | None, path: str) -> None:
    admission = AdmissionSettings(origins=("https://good.example",))
    async with run_gateway(orders=intake, auth=auth, admission=admission) as running:
        await asked(running.port, path, ORDER, [JSON, "Idempotency-Key: same"], auth)
        for name, (body, headers) in REQUESTS.items():
            by_router = await asked(running.port, path + "?other=1", body, headers, auth, "router")
            without = await asked(running.port, path, body, headers, auth, "none")
            assert by_router.startswith(b"HTTP/1.1 "), name
            assert VARIES.sub(b"", without) == VARIES.sub(b"", by_router), name


async def test_a_defect_is_answered_with_500_and_nothing_of_the_inside(intake: Intake) -> None:
    async with run_gateway(orders=intake) as running:
        intake.recent = None  # type: ignore[assignment]
        answer = await asked(running.port, "/execute", ORDER, [JSON], None)
        assert b" 500 " in answer
        assert b"NoneType" not in answer


async def asked(
    port: int, path: str, body: str, headers: list[str], auth: AuthSettings | None, nth: str = "once"
) -> bytes:
    """The whole answer to a POST."""
    lines = [line.format(nth=nth) for line in headers]
    if not any(line.startswith("Host:") for line in lines):
        lines.append("Host: test")
    if auth is not None and not any("Authorization:" in line for line in lines):
        lines.append(f"Authorization: Bearer {token(now_s=SystemClock().wall_ns() / 1e9)}")
    lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, "Connection: close", "", ""])
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode("latin-1") + body.encode())
        answer = await reader.read()
        writer.close()
    return answer
