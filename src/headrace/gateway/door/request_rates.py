"""The rate of HTTP requests of one address or, once the user is known, of one user."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Literal, NamedTuple

from prometheus_client import Counter

from headrace.gateway.door.deadlines import Deadlines
from headrace.gateway.problems import Refused, retry_after
from headrace.protocol.session import TokenBucket
from headrace.runtime.clock import Clock


class Asker(NamedTuple):
    """The address or user for which a request is counted."""

    kind: Literal["address", "user"]
    name: str


class RequestRates:
    """A rate limit for each asker: `per_s()` requests a second, and as many at once. `refused` counts refusals.

    After a second without a request, an asker's bucket is full again, so the asker is forgotten. This limits the
    memory.
    """

    def __init__(self, clock: Clock, per_s: Callable[[], int], refused: Counter) -> None:
        self._clock, self._per_s, self._refused = clock, per_s, refused
        self._buckets: dict[Asker, TokenBucket] = {}
        self._resting: Deadlines[Asker] = Deadlines(1.0)

    def take(self, asker: Asker) -> None:
        """Count a request. If the rate is exceeded, raises Refused 429 and counts nothing."""
        now_s, per_s = self._clock.monotonic(), self._per_s()
        for rested in self._resting.due(now_s):
            del self._buckets[rested]
        bucket = self._buckets.get(asker)
        if bucket is None or bucket.per_s != per_s:
            bucket = self._buckets[asker] = TokenBucket(per_s, now_s)
        self._resting.set(asker, now_s)
        if wait_s := bucket.take(now_s):
            self._refused.labels(str(int(HTTPStatus.TOO_MANY_REQUESTS))).inc()
            whose = "from this address" if asker.kind == "address" else "of this user"
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, f"too many requests {whose}", retry_after(wait_s))

    def give_back(self, asker: Asker) -> None:
        """Count one request less for the asker."""
        if bucket := self._buckets.get(asker):
            bucket.give_back()
