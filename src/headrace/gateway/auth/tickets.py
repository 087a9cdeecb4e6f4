"""Tickets: single-use credentials, valid for seconds, that replace a token where it must not appear, as in URLs."""

import hashlib
import secrets
from collections import Counter, OrderedDict
from typing import Final, NamedTuple, Protocol

from headrace.model.errors import RequestError
from headrace.model.identity import Identity
from headrace.protocol.codes import ErrorCode
from headrace.runtime.clock import Clock

PER_SUBJECT_MAX: Final = 32
"""Maximum number of unused tickets of one user, so that no user can take all tickets."""

_LENGTH_MAX: Final = 128


class Tickets(Protocol):
    """A ticket can be redeemed once, by any bearer, until it expires. Afterwards it is unknown."""

    async def issue(self, identity: Identity) -> str:
        """Return a new ticket. Raises RequestError 111 if too many tickets are unused."""

    async def redeem(self, ticket: str) -> Identity | None:
        """Redeem a ticket and return its identity; None if the ticket is not valid, or no longer valid."""


class _Waiting(NamedTuple):
    identity: Identity
    until_s: float


class MemoryTickets:
    """Tickets of one process, kept as digests. Neither the time of a look-up nor a memory dump reveals a ticket."""

    def __init__(self, clock: Clock, *, ticket_s: float, tickets_max: int) -> None:
        self._clock, self._ticket_s, self._tickets_max = clock, ticket_s, tickets_max
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._per_subject: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    async def issue(self, identity: Identity) -> str:
        now_s = self._clock.monotonic()
        self._drop_old(now_s)
        if len(self._waiting) >= self._tickets_max or self._per_subject[identity.subject] >= PER_SUBJECT_MAX:
            retry_after_ms = int(self._ticket_s * 1000)
            message = "too many tickets wait to be used"
            raise RequestError(ErrorCode.RATE_LIMITED, message, temporary=True, retry_after_ms=retry_after_ms)
        ticket = secrets.token_urlsafe(32)
        self._waiting[_digest(ticket)] = _Waiting(identity, now_s + self._ticket_s)
        self._per_subject[identity.subject] += 1
        return ticket

    async def redeem(self, ticket: str) -> Identity | None:
        self._drop_old(self._clock.monotonic())
        if len(ticket) > _LENGTH_MAX:
            return None
        waiting = self._waiting.pop(_digest(ticket), None)
        return None if waiting is None else self._forget(waiting)

    def _drop_old(self, now_s: float) -> None:
        """Drop expired tickets. All tickets are valid for the same time, so the oldest expire first."""
        while self._waiting and next(iter(self._waiting.values())).until_s <= now_s:
            self._forget(self._waiting.popitem(last=False)[1])

    def _forget(self, waiting: _Waiting) -> Identity:
        subject = waiting.identity.subject
        self._per_subject[subject] -= 1
        if not self._per_subject[subject]:
            del self._per_subject[subject]
        return waiting.identity


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
