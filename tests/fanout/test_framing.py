"""Framing on real sockets: what a client is answered depends on its bytes, not on how they were cut on their way."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from litestar import Request, post

from tests.gateway.http_corpus import CASES, LIVE, LONG, Case
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway

on_one_loop = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 8
"""Connections; each cut is one of its own."""

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
CHANGING = re.compile(rb"date: [^\r]*\r\n", re.IGNORECASE)


@post("/mirror")
async def mirror(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """What the application sees of a request."""
    fields = [(name.decode(), value.decode("latin-1")) for name, value in request.scope["headers"]]
    return {"method": request.method, "body": (await request.body()).decode("latin-1"), "fields": fields}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RunningGateway]:
    async with run_gateway(handlers=(mirror,), request_s=60) as running:
        yield running


async def answers(running: RunningGateway, pieces: Sequence[bytes]) -> bytes:
    """All that comes back for these pieces, each read before the next is sent, until the server ends the connection."""
    raw = await Raw.connect(running.port)
    try:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            raw.send(piece)
        raw.writer.write_eof()
        async with asyncio.timeout(30):
            return CHANGING.sub(b"", await raw.reader.read())
    finally:
        raw.leave()


def statuses(answer: bytes) -> tuple[int, ...]:
    return tuple(map(int, STATUS.findall(answer)))


def seen(answer: bytes) -> Any:
    """What the first answer says that the application saw."""
    return json.JSONDecoder().raw_decode(answer.partition(b"\r\n\r\n")[2].decode())[0]


@on_one_loop
@pytest.mark.parametrize("case", [*CASES, *LONG], ids=lambda case: case.name)
async def test_a_case_gets_the_answers_that_are_due(running: RunningGateway, case: Case) -> None:
    assert statuses(await answers(running, [case.data])) == case.statuses


async def check_cuts(running: RunningGateway, case: Case, step: int) -> None:
    whole = await answers(running, [case.data])
    cuts = range(1, len(case.data), step)
    for first in range(0, len(cuts), AT_ONCE):
        some = cuts[first : first + AT_ONCE]
        found = await asyncio.gather(*(answers(running, [case.data[:cut], case.data[cut:]]) for cut in some))
        for cut, answer in zip(some, found, strict=True):
            assert answer == whole, case.data[:cut]


@on_one_loop
@pytest.mark.parametrize("case", [case for case in CASES if case.statuses[-1] < 400], ids=lambda case: case.name)
async def test_a_sound_case_cut_anywhere_gets_the_same_answers(running: RunningGateway, case: Case) -> None:
    await check_cuts(running, case, 1)


@on_one_loop
@pytest.mark.parametrize("case", [case for case in CASES if case.statuses[-1] >= 400], ids=lambda case: case.name)
async def test_a_fault_cut_here_and_there_gets_the_same_answers(running: RunningGateway, case: Case) -> None:
    """At every byte in the long form; the reader itself is cut at every byte in test_rfc9112.py."""
    await check_cuts(running, case, 23)


@pytest.mark.long
@on_one_loop
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_in_any_pieces_gets_the_same_answers(running: RunningGateway, case: Case) -> None:
    await check_cuts(running, case, 1)
    pieces = [case.data[at : at + 1] for at in range(len(case.data))]
    assert await answers(running, pieces) == await answers(running, [case.data])


@on_one_loop
async def test_a_request_in_a_body_is_never_served(running: RunningGateway) -> None:
    """A declined Upgrade: in one piece the body was lost, in two it was the next request."""
    (case,) = [case for case in CASES if case.name == "h2c"]
    at = case.data.index(LIVE)
    for pieces in ([case.data], [case.data[:at], case.data[at:]], [case.data[:at], LIVE[:10], LIVE[10:] + LIVE]):
        answer = await answers(running, pieces)
        assert statuses(answer) == (201, 200)
        assert seen(answer)["body"] == LIVE.decode()


@on_one_loop
async def test_trailers_are_seen_by_no_handler(running: RunningGateway) -> None:
    (case,) = [case for case in CASES if case.name == "trailers"]
    answer = await answers(running, [case.data])
    assert seen(answer)["body"] == "hello"
    assert [name for name, _ in seen(answer)["fields"]] == ["host", "transfer-encoding"]


def test_every_case_gets_its_answers_on_uvloop() -> None:
    """The loop of `headrace serve`."""

    async def ask() -> None:
        async with run_gateway(handlers=(mirror,), request_s=60) as running:
            for case in (*CASES, *LONG):
                at = len(case.data) // 2
                for pieces in ([case.data], [case.data[:at], case.data[at:]]):
                    assert statuses(await answers(running, pieces)) == case.statuses, case.name

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
