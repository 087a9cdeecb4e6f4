"""Checks every part that can fail, again and again, and reports the results to `Health`."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import structlog

from headrace.model.errors import HeadraceError
from headrace.runtime.clock import Clock
from headrace.runtime.health import NOT_ASKED, Health

PERIOD_S: Final = 2.0
PATIENCE_S: Final = 3.0
"""Maximum seconds to wait for the answer of a check. A part that has not answered by then is not ready."""

_log = structlog.get_logger("health")


class Check(Protocol):
    """Check of a part. Returns if the part works; otherwise raises HeadraceError with the reason.

    `thorough` is set while the part is not ready. The check must then prove that the part works again.
    """

    def __call__(self, *, thorough: bool) -> Awaitable[object]: ...


class Probes:
    """The parts of one process. An added part is reported at once, as not ready until its first check passes.

    A part becomes not ready with its first failure, in a check or reported through `trouble`. It becomes ready again
    with the next check that passes.
    """

    def __init__(
        self, health: Health, clock: Clock, *, period_s: float = PERIOD_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._health, self._clock = health, clock
        self._period_s, self._patience_s = period_s, patience_s
        self._checks: dict[str, tuple[Check, bool]] = {}
        self._open: dict[str, asyncio.Future[object]] = {}

    def add(self, part: str, check: Check, *, required: bool = True) -> None:
        """Check this part in every period from now on."""
        self._checks[part] = (check, required)
        self._health.expect(part, required=required)

    def trouble(self, part: str) -> Callable[[HeadraceError], None]:
        """Return a function to be called with the errors that the part meets between two checks."""
        return partial(self._failed, part)

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(self._checks)

    async def run(self) -> None:
        """Check all parts each period, until cancelled."""
        try:
            while True:
                await self.ask_all()
                await self._clock.sleep(self._period_s)
        finally:
            for asked in self._open.values():
                asked.cancel()
            if self._open:  # a check that hangs is not awaited any longer
                await asyncio.wait(self._open.values(), timeout=self._patience_s)

    async def ask_all(self) -> None:
        """Check all parts at the same time. A part whose last check has not ended is not checked again."""
        await asyncio.gather(*[self._ask(part, *self._checks[part]) for part in list(self._checks)])

    async def _ask(self, part: str, check: Check, required: bool) -> None:
        before = self._health.components()[part]
        asked = self._open.get(part)
        if asked is None:
            asked = self._open[part] = asyncio.ensure_future(check(thorough=not before.ready))
        # Not `asyncio.timeout`: a check that hangs may ignore its cancellation too.
        await asyncio.wait([asked], timeout=self._patience_s)
        if not asked.done():
            self._report(part, ready=False, detail="does not answer", required=required)
            return
        del self._open[part]
        try:
            answer = asked.result()
        except HeadraceError as error:
            self._report(part, ready=False, detail=str(error), required=required)
        except Exception as error:  # noqa: BLE001  (a defect in one check must not stop the other checks)
            _log.exception("part_broken", part=part, error=repr(error))
            self._report(part, ready=False, detail="broken: part_broken in the log", required=required)
        else:
            self._report(part, ready=True, detail=answer if isinstance(answer, str) else "", required=required)

    def _failed(self, part: str, error: HeadraceError) -> None:
        if part in self._checks:
            self._report(part, ready=False, detail=str(error), required=self._checks[part][1])

    def _report(self, part: str, *, ready: bool, detail: str, required: bool) -> None:
        before = self._health.components().get(part)
        self._health.report(part, ready=ready, detail=detail, required=required)
        if before is None or before.ready == ready:
            return
        if ready and before.detail != NOT_ASKED:
            _log.info("part_ready_again", part=part)
        elif not ready:
            _log.warning("part_not_ready", part=part, error=detail)
