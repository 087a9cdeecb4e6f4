"""Framing on real sockets: what a client is answered depends on its bytes, not on how they were cut on their way."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from litestar import Request, post

from tests.gateway.house import House, Raw, open_house
from tests.gateway.http_corpus import CASES, LIVE, LONG, Case

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
async def house() -> AsyncIterator[House]:
    async with open_house(handlers=(mirror,), request_s=60) as house:
        yield house


async def answers(house: House, pieces: Sequence[bytes]) -> bytes:
    """All that comes back for these pieces, each read before the next is sent, until the server ends the connection."""
    raw = await Raw.connect(house.port)
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


@pytest.mark.parametrize("case", [*CASES, *LONG], ids=lambda case: case.name)
async def test_a_case_gets_the_answers_that_are_due(house: House, case: Case) -> None:
    assert statuses(await answers(house, [case.data])) == case.statuses


async def check_cuts(house: House, case: Case, step: int) -> None:
    whole = await answers(house, [case.data])
    cuts = range(1, len(case.data), step)
    for first in range(0, len(cuts), AT_ONCE):
        some = cuts[first : first + AT_ONCE]
        found = await asyncio.gather(*(answers(house, [case.data[:cut], case.data[cut:]]) for cut in some))
        for cut, answer in zip(some, found, strict=True):
            assert answer == whole, case.data[:cut]


@pytest.mark.parametrize("case", [case for case in CASES if case.statuses[-1] < 400], ids=lambda case: case.name)
async def test_a_sound_case_cut_anywhere_gets_the_same_answers(house: House, case: Case) -> None:
    await check_cuts(house, case, 1)


@pytest.mark.parametrize("case", [case for case in CASES if case.statuses[-1] >= 400], ids=lambda case: case.name)
async def test_a_fault_cut_here_and_there_gets_the_same_answers(house: House, case: Case) -> None:
    """At every byte in the long form; the reader itself is cut at every byte in test_rfc9112.py."""
    await check_cuts(house, case, 23)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_in_any_pieces_gets_the_same_answers(house: House, case: Case) -> None:
    await check_cuts(house, case, 1)
    pieces = [case.data[at : at + 1] for at in range(len(case.data))]
    assert await answers(house, pieces) == await answers(house, [case.data])


async def test_a_request_in_a_body_is_never_served(house: House) -> None:
    """A declined Upgrade: in one piece the body was lost, in two it was the next request."""
    (case,) = [case for case in CASES if case.name == "h2c"]
    at = case.data.index(LIVE)
    for pieces in ([case.data], [case.data[:at], case.data[at:]], [case.data[:at], LIVE[:10], LIVE[10:] + LIVE]):
        answer = await answers(house, pieces)
        assert statuses(answer) == (201, 200)
        assert seen(answer)["body"] == LIVE.decode()


async def test_trailers_are_seen_by_no_handler(house: House) -> None:
    (case,) = [case for case in CASES if case.name == "trailers"]
    answer = await answers(house, [case.data])
    assert seen(answer)["body"] == "hello"
    assert [name for name, _ in seen(answer)["fields"]] == ["host", "transfer-encoding"]
