"""Look-up of the mints of pools whose key alone is known: in batches, bounded, kept in a file.

ask ──▶ kept? ──yes──────────────────────────────▶ known
          └──▶ getMultipleAccounts, ≤100 at once ─▶ known: the program owns it, and it is a pool
                 ▲          │                      ▶ none: absent several times, or no pool of the program
                 └── again ─┘                      ▶ unanswered: no answer in time
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
import structlog

from headrace.config import Setting
from headrace.model.errors import HeadraceError
from headrace.model.updates import PoolUpdate
from headrace.runtime.channel import ChannelClosed
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.solana.rpc import ACCOUNTS_PER_CALL_MAX, AccountInfo, Rpc
from headrace.sources import Outlet
from headrace.sources.pools.file import ROWS_MAX, Known, PoolFile

NAME: Final = "pools"
LOOK_S: Final = 0.05
"""Seconds between calls. Pools requested in between share a call."""
ASKED_MAX: Final = 4_096
ABSENT_TIMES: Final = 3
"""Number of answers without a pool before it counts as absent, because a node may be behind the one that sent the
log."""
ABSENT_PAUSE_S: Final = 0.4

ReadPair = Callable[[str, bytes], tuple[str, str] | None]
"""(owner, data) of an account → the mints in the pool's order; None if the account is not a pool."""

_log = structlog.get_logger("pools")


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[pools]`: for log lines that name a pool but no mint."""

    lookup: Annotated[bool, Setting("ask a node for the mints of pools that log lines name", env=("POOL_LOOKUP",))] = (
        True
    )
    lookup_s: Annotated[
        float,
        msgspec.Meta(gt=0, le=60),
        Setting("longest time that a trade waits for the mints of its pool", env=("POOL_LOOKUP_S",)),
    ] = 2.0
    file: Annotated[str, Setting("SQLite file that keeps the mints of pools; empty: none", env=("POOLS_FILE",))] = (
        "headrace-pools.db"
    )


class _OpenQuestion:
    """A pool without an answer yet."""

    __slots__ = ("absent", "again_at", "deadline", "program_id")

    def __init__(self, program_id: str, deadline: float) -> None:
        self.program_id, self.deadline = program_id, deadline
        self.again_at, self.absent = 0.0, 0


class PoolLookup:
    """Look-up of pools. `run` answers each `ask` with one PoolUpdate on the outlet, within `lookup_s` plus one call.

    At most ASKED_MAX pools wait at once. Any more are `unanswered`. ROWS_MAX pools are kept. If there are more, the
    oldest is dropped.
    """

    def __init__(
        self,
        rpc: Rpc,
        outlet: Outlet,
        read: ReadPair,
        *,
        settings: PoolSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._rpc, self._outlet, self._read = rpc, outlet, read
        self._settings, self._clock = settings, clock
        self._file = PoolFile(settings.file) if settings.file else None
        self._known: dict[str, Known] = {}
        self._asked: dict[str, _OpenQuestion] = {}
        self._answers: list[PoolUpdate] = []
        self._unkept: list[Known] = []
        self._something = asyncio.Event()
        self._answered = metrics.counter("pool_lookups", "Pools whose mints were asked for, by the answer", ("answer",))
        self._calls = metrics.counter("pool_lookup_calls", "getMultipleAccounts calls for pools", ("outcome",))

    def ask(self, pool: str, program_id: str) -> None:
        """Request a PoolUpdate for the pool. Never waits."""
        known = self._known.get(pool)
        if known is not None and known.program_id == program_id:
            self._answer(pool, "known", (known.first, known.second), counted_as="kept")
        elif len(self._asked) >= ASKED_MAX:
            self._answer(pool, "unanswered")
        else:
            self._asked.setdefault(pool, _OpenQuestion(program_id, self._clock.monotonic() + self._settings.lookup_s))
        self._something.set()

    async def run(self) -> None:
        """Answer requests until the outlet is closed."""
        await self._load()
        try:
            while True:
                await self._something.wait()
                await self._clock.sleep(LOOK_S)
                await self._once()
                answers, self._answers = self._answers, []
                for answer in answers:
                    await self._outlet.put(answer)
                await self._keep()
                if not self._asked and not self._answers:
                    self._something.clear()
        except ChannelClosed:
            pass

    async def _once(self) -> None:
        now = self._clock.monotonic()
        due = [pool for pool, asked in self._asked.items() if asked.again_at <= now][:ACCOUNTS_PER_CALL_MAX]
        if due:
            try:
                async with asyncio.timeout(self._settings.lookup_s):
                    found = await self._rpc.get_multiple_accounts(due, "processed")
            except (HeadraceError, TimeoutError) as error:
                self._calls.labels("failed").inc()
                _log.debug("pool_lookup_failed", count=len(due), error=str(error))
                self._put_off(due)
            else:
                self._calls.labels("answered").inc()
                for pool, account in zip(due, found, strict=True):
                    self._take(pool, account)
        now = self._clock.monotonic()
        for pool in [pool for pool, asked in self._asked.items() if asked.deadline <= now]:
            del self._asked[pool]
            self._answer(pool, "unanswered")

    def _take(self, pool: str, account: AccountInfo | None) -> None:
        asked = self._asked[pool]
        if account is None:
            asked.absent += 1
            self._put_off([pool])
            if asked.absent >= ABSENT_TIMES:
                del self._asked[pool]
                self._answer(pool, "none")
            return
        del self._asked[pool]
        pair = self._read(account.owner, account.data) if account.owner == asked.program_id else None
        if pair is None:
            self._answer(pool, "none", slot=account.slot)
            return
        self._remember(Known(pool, asked.program_id, *pair))
        self._unkept.append(self._known[pool])
        self._answer(pool, "known", pair, slot=account.slot)

    def _put_off(self, pools: list[str]) -> None:
        again_at = self._clock.monotonic() + min(ABSENT_PAUSE_S, self._settings.lookup_s / (ABSENT_TIMES + 1))
        for pool in pools:
            self._asked[pool].again_at = again_at

    def _answer(
        self,
        pool: str,
        state: Literal["known", "none", "unanswered"],
        mints: tuple[str, str] | None = None,
        *,
        slot: int = 0,
        counted_as: str = "",
    ) -> None:
        self._answered.labels(counted_as or state).inc()
        self._answers.append(
            PoolUpdate(
                source=NAME,
                feed=NAME,
                received_ns=self._clock.wall_ns(),
                slot=slot,
                pool=pool,
                state=state,
                mints=mints,
            )
        )

    def _remember(self, known: Known) -> None:
        if len(self._known) >= ROWS_MAX:
            del self._known[next(iter(self._known))]
        self._known[known.pool] = known

    async def _load(self) -> None:
        if self._file is None or self._known:
            return
        try:
            for known in await asyncio.to_thread(self._file.load):
                self._remember(known)
        except (sqlite3.Error, OSError) as error:
            _log.warning("pools_file_unusable", error=str(error), effect="pools are asked for again")
        for pool, asked in list(self._asked.items()):  # requested before the file was read
            if pool in self._known:
                del self._asked[pool]
                self.ask(pool, asked.program_id)

    async def _keep(self) -> None:
        """Write new pools to the file. If that fails, the newest ROWS_MAX are kept for the next attempt."""
        if self._file is None or not self._unkept:
            self._unkept.clear()
            return
        try:
            await asyncio.to_thread(self._file.keep, list(self._unkept))
            self._unkept.clear()
        except (sqlite3.Error, OSError) as error:
            del self._unkept[:-ROWS_MAX]
            _log.warning("pools_file_unusable", error=str(error), effect="what is known is lost at the next start")
