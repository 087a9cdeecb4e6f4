"""Counts what could not be read, logs it at a bounded rate, and declares it as gaps where it is missing."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
import structlog

from headrace.cores import Unread
from headrace.ingest.gaps import GapLedger, UnreadSlots
from headrace.ingest.measures import Measures
from headrace.model.errors import BadInputError
from headrace.model.facts import GapDeclared, News
from headrace.model.updates import AccountUpdate, AnyUpdate, GapUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import Clock

Observed: TypeAlias = LogsUpdate | TransactionUpdate | AccountUpdate

COMPLAINTS_MAX: Final = 1_024
COMPLAINT_S: Final = 60.0
"""Seconds in which the same fault is logged only once; every fault is counted."""

UNREAD: Final = "unread"
"""The reason of a gap in which something arrived but could not be read."""

_log = structlog.get_logger("ingest")


class Troubles:
    """Gaps of the sources, and gaps by updates that could not be read."""

    def __init__(self, clock: Clock, measures: Measures) -> None:
        self._clock, self._measures = clock, measures
        self._gaps, self._unread_slots = GapLedger(), UnreadSlots()
        self._complained: dict[tuple[str, ...], float] = {}

    def gap(self, update: GapUpdate) -> list[News]:
        """Return the gap as it is to be declared now; nothing if that was declared before.

        A refill that delivered something unreadable did not deliver everything.
        """
        low, high = sorted((update.from_slot, update.to_slot))
        if update.state == "backfilled" and self._unread_slots.touched(update.feed, low, high):
            update = msgspec.structs.replace(update, state="unrecoverable", reason=UNREAD)
        news = self._declare(update)
        if news:
            self._measures.gaps[update.source, update.state] += 1
        return news

    def unread(self, update: Observed, unread: Sequence[Unread]) -> list[News]:
        """Count and log events that were published without their meaning, and declare gaps where it is missing."""
        for each in unread:
            self._measures.unread[each.program, each.event, each.reason] += 1
            self._complain(
                "event_unread",
                (each.program, each.event, each.reason),
                signature=update.signature,
                slot=update.slot,
                detail=each.detail,
            )
        self._unread_slots.note(update.feed, update.slot)
        news: list[News] = []
        for program in dict.fromkeys(each.program for each in unread):
            news += self._declare(_unread_gap(update, program), program)
        return news

    def unusable(self, update: AnyUpdate, error: Exception) -> list[News]:
        """Count and log an update that could not be published at all, and declare the gap that it leaves."""
        reason = error.reason if isinstance(error, BadInputError) else type(error).__name__
        self._measures.bad[reason] += 1
        signature = update.signature if isinstance(update, LogsUpdate | TransactionUpdate) else None
        self._complain("update_unusable", (reason,), signature=signature, slot=update.slot, detail=str(error)[:200])
        if isinstance(update, LogsUpdate | TransactionUpdate | AccountUpdate):
            self._unread_slots.note(update.feed, update.slot)
            return self._declare(_unread_gap(update, update.feed))
        return []

    def _declare(self, update: GapUpdate, program: str | None = None) -> list[News]:
        gap = self._gaps.apply(update)
        return [] if gap is None else [GapDeclared(gap, update.feed, program)]

    def _complain(self, event: str, about: tuple[str, ...], **fields: object) -> None:
        """Log what could not be read, the same fault at most once in COMPLAINT_S."""
        now, key = self._clock.monotonic(), (event, *about)
        if now - self._complained.get(key, -COMPLAINT_S) >= COMPLAINT_S:
            if len(self._complained) >= COMPLAINTS_MAX:
                self._complained.clear()
            self._complained[key] = now
            _log.error(event, about=" ".join(about), **fields)


def _unread_gap(update: Observed, what: str) -> GapUpdate:
    """Return the gap in which something of `what` arrived but could not be read: one gap for each slot."""
    return GapUpdate(
        source=update.source,
        feed=update.feed,
        received_ns=update.received_ns,
        slot=update.slot,
        gap_id=f"{UNREAD}:{what}:{update.slot}",
        from_slot=update.slot,
        to_slot=update.slot,
        state="unrecoverable",
        reason=UNREAD,
    )
