"""How long a refusal takes says nothing of how near a credential was to a good one."""

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from headrace.gateway.auth.keys import SharedSecret
from headrace.gateway.auth.tickets import MemoryTickets
from headrace.gateway.auth.tokens import Tokens
from headrace.model.errors import BadInputError
from headrace.model.identity import Identity, Permissions
from headrace.runtime.clock import ManualClock
from tests.gateway.auth.checking import NOW_S
from tests.gateway.issuer import HS256, SECRET, token

SAMPLES: Final = 5_000
T_MAX: Final = 10.0
"""Of Welch's t. A comparison that ends at the first wrong byte gives some tens with so many samples."""

pytestmark = pytest.mark.long

Attempt = Callable[[str], Awaitable[object]]


async def welch_t(attempt: Attempt, first: str, second: str) -> float:
    """How surely two texts take different times: samples in turn, the processor's time, the slowest tenth left out."""
    took: tuple[list[int], list[int]] = ([], [])
    for number in range(2 * SAMPLES):
        text = (first, second)[number % 2]
        begun = time.thread_time_ns()
        await attempt(text)
        took[number % 2].append(time.thread_time_ns() - begun)
    one, other = (sorted(times)[: SAMPLES * 9 // 10] for times in took)
    spread = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return abs(statistics.fmean(one) - statistics.fmean(other)) / spread


def changed(text: str, at: int) -> str:
    """The same but for one character, which stays one of base64."""
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


async def test_wrong_signatures_take_equally_long() -> None:
    tokens = Tokens(HS256, SharedSecret(SECRET), ManualClock(NOW_S * 10**9))
    good = token(now_s=NOW_S)
    begin = good.rindex(".") + 1

    async def attempt(text: str) -> None:
        try:
            await tokens.verify(text)
        except BadInputError as error:
            assert error.reason == "bad_signature"
        else:
            raise AssertionError("a forged token came in")

    assert await welch_t(attempt, changed(good, begin), changed(good, len(good) - 4)) < T_MAX


async def test_wrong_tickets_take_equally_long() -> None:
    tickets = MemoryTickets(ManualClock(), ticket_s=30, tickets_max=10)
    good = await tickets.issue(Identity("42", 2**50, Permissions.of(["*"]), admin=False))
    assert await welch_t(tickets.redeem, changed(good, 0), changed(good, len(good) - 1)) < T_MAX


async def test_an_early_ending_comparison_is_detected() -> None:
    """Else the tests above prove nothing."""
    good = "x" * 4096

    async def attempt(text: str) -> bool:
        return all(one == other for one, other in zip(text, good, strict=True))

    assert await welch_t(attempt, changed(good, 0), changed(good, 4000)) > T_MAX
