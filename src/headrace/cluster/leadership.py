"""Take a lease, keep it, and hand it on, so that one server at a time does the work of the lease."""

from collections.abc import Callable
from typing import Final

import structlog

from headrace.cluster import Cluster, Grant
from headrace.model.errors import FencedError, TransientError
from headrace.runtime.clock import Clock

TRIES: Final = 4
"""Number of times that a server tries to take or prolong a lease within the duration of one lease."""

_log = structlog.get_logger("cluster")


class Candidate:
    """A server that wants a lease: `win` it, then `keep` it, at the end `release` it.

    `note` returns what the next holder needs to continue. While the directory is away no server can take the lease, so
    the holder continues. A candidate that could not reach the directory waits for the duration of a lease before the
    next try, so that the former holder is the first to come back.
    """

    def __init__(
        self,
        cluster: Cluster,
        lease: str,
        holder: str,
        lease_s: float,
        clock: Clock,
        note: Callable[[], bytes] = bytes,
    ) -> None:
        self.lease = lease
        self._cluster, self._holder, self._lease_s, self._clock = cluster, holder, lease_s, clock
        self._note = note
        self._grant: Grant | None = None

    async def win(self) -> Grant:
        """Return once this server has the lease."""
        while True:
            try:
                self._grant = await self._cluster.take(self.lease, self._holder, self._lease_s)
            except TransientError as error:
                _log.warning("lease_unknown", lease=self.lease, error=str(error))
                await self._clock.sleep(self._lease_s)
                continue
            if self._grant is not None:
                _log.info("lease_taken", lease=self.lease, number=self._grant.token)
                return self._grant
            await self._clock.sleep(self._lease_s / TRIES)

    async def keep(self) -> None:
        """Prolong the lease until cancelled. Raises FencedError if another server took it."""
        assert self._grant is not None
        token = self._grant.token
        away = False
        while True:
            await self._clock.sleep(self._lease_s / TRIES)
            try:
                kept = await self._cluster.keep(self.lease, self._holder, token, self._lease_s, self._note())
            except TransientError as error:
                if not away:
                    _log.warning("lease_unknown", lease=self.lease, error=str(error))
                away = True
                continue
            away = False
            if not kept:
                self._grant = None
                raise FencedError(f"lease {self.lease}: another server took it after token {token}")

    async def release(self) -> None:
        """End the lease now, if this server has it and the directory can be reached."""
        grant, self._grant = self._grant, None
        if grant is None:
            return
        try:
            await self._cluster.release(self.lease, grant.token, self._note())
        except TransientError as error:
            _log.warning("lease_unknown", lease=self.lease, error=str(error))
