"""Clients that can't keep up and wished not to be closed: what they got and what they were told is everything."""

from typing import Any

import pytest

from tests.fanout.test_slow_clients import SMALL, TOPIC, stalled_client
from tests.gateway.running_gateway import Raw, RunningGateway, run_gateway

TOTAL = 2000
KEYS = 7


async def flood(running: RunningGateway, begin: int = 0) -> None:
    """More than every buffer holds, in batches with a round of the hub between, as a stream comes."""
    pad = "x" * 1000
    for start in range(begin, begin + TOTAL, 10):
        await running.tell(
            TOPIC, *({"n": n, "k": n % KEYS, "even": n % 2 == 0, "pad": pad} for n in range(start, start + 10))
        )
        await running.gateway.hub.flush()


async def read_up_to(raw: Raw, last: int) -> tuple[list[int], list[Any]]:
    """The offsets and the lags that came, until the event with the offset `last`."""
    got: list[int] = []
    lags: list[Any] = []
    while not got or got[-1] < last:
        answer = await raw.json()
        if answer["type"] == "lag":
            lags.append(answer["data"])
        else:
            assert answer["type"] == "event", answer
            got.append(int(answer["offset"]))
    return got, lags


@pytest.mark.parametrize("history_size", [5000, 50])
async def test_drop_oldest_skips_ahead_with_an_exact_lag(history_size: int) -> None:
    async with run_gateway(slow_abort_s=60, history_size=history_size, **SMALL) as running:
        stalled = await stalled_client(running, on_slow="drop_oldest")
        await flood(running)
        got: list[int] = []
        while (answer := await stalled.json())["type"] == "event":
            got.append(int(answer["offset"]))
        assert got == list(range(1, len(got) + 1))
        assert 0 < len(got) < TOTAL
        lost = {"epoch": "g", "from_offset": str(len(got) + 1), "to_offset": str(TOTAL), "dropped": TOTAL - len(got)}
        assert answer == {"type": "lag", "topic": TOPIC, "data": lost}
        assert running.metric("gateway_dropped_messages_total") == TOTAL - len(got)
        await running.publish(TOPIC, 2)
        assert await read_up_to(stalled, TOTAL + 2) == ([TOTAL + 1, TOTAL + 2], [])
        stalled.leave()


async def test_repeated_stalls_deliver_or_report_every_message() -> None:
    async with run_gateway(slow_abort_s=60, history_size=100, **SMALL) as running:
        stalled = await stalled_client(running, on_slow="drop_oldest")
        got: list[int] = []
        lags: list[Any] = []
        for round_ in range(3):
            await flood(running, TOTAL * round_)
            newest = TOTAL * (round_ + 1)
            while (max(got, default=0), *[int(lag["to_offset"]) for lag in lags[-1:]])[-1] < newest:
                answer = await stalled.json()
                if answer["type"] == "lag":
                    lags.append(answer["data"])
                else:
                    got.append(int(answer["offset"]))
        told = [n for lag in lags for n in range(int(lag["from_offset"]), int(lag["to_offset"]) + 1)]
        assert sum(lag["dropped"] for lag in lags) == len(told)
        assert sorted(got + told) == list(range(1, 3 * TOTAL + 1))
        assert got == sorted(got)
        assert len(lags) >= 3
        stalled.leave()


async def test_drop_oldest_with_a_filter_counts_what_would_have_passed() -> None:
    async with run_gateway(slow_abort_s=60, history_size=50, **SMALL) as running:
        even = {"key": "even", "cmp": "eq", "val": True}
        stalled = await stalled_client(running, on_slow="drop_oldest", filter=even)
        await flood(running)
        await flood(running, TOTAL)
        got: list[int] = []
        while (answer := await stalled.json())["type"] == "event":
            got.append(int(answer["offset"]))
        assert got == list(range(1, 2 * len(got), 2))
        lag = answer["data"]
        assert int(lag["from_offset"]) > got[-1]
        assert lag["dropped"] == TOTAL - len(got)
        stalled.leave()


def every(ms: int) -> dict[str, Any]:
    return {"key": "k", "every_ms": ms}


@pytest.mark.parametrize("history_size", [5000, 50])
async def test_conflate_when_slow_sends_the_latest_of_each_key_and_a_lag(history_size: int) -> None:
    async with run_gateway(slow_abort_s=60, history_size=history_size, **SMALL) as running:
        stalled = await stalled_client(running, on_slow="conflate", conflate=every(10))
        fill = KEYS  # each window has this many messages
        newest = 0
        while not running.metric("gateway_paused_total"):
            newest = (await running.tell(TOPIC, *({"k": k, "pad": "x" * 5000} for k in range(fill))))[-1].offset
            running.gateway.hub.windows.end_all()
            await running.gateway.hub.flush()
        for _ in range(100):  # this much it can't take
            newest = (await running.tell(TOPIC, *({"k": k, "pad": "x" * 100} for k in range(fill))))[-1].offset
            running.gateway.hub.windows.end_all()
            await running.gateway.hub.flush()
        got: list[int] = []
        while (answer := await stalled.json())["type"] == "event":
            got.append(int(answer["offset"]))
        assert got == list(range(1, len(got) + 1))
        lag = answer["data"]
        assert answer["type"] == "lag"
        assert (int(lag["from_offset"]), int(lag["to_offset"])) == (len(got) + 1, newest)
        if history_size == 5000:
            assert lag["dropped"] == newest - len(got) - KEYS
            assert (await read_up_to(stalled, newest)) == (list(range(newest - KEYS + 1, newest + 1)), [])
        else:
            assert lag["dropped"] == newest - len(got)
        await running.tell(TOPIC, {"k": 0}, {"k": 0})
        assert await read_up_to(stalled, newest + 2) == ([newest + 2], [])
        stalled.leave()
