"""States of pools that the stream keeps current, and that a node fills where the stream does not.

A quote names a pair ──▶ its pools ──▶ their accounts ──▶ current? ── yes ──▶ states as of one slot
                                                             └─ no ──▶ getMultipleAccounts, ≤100 at once ─┘
The accounts of quoted pools are followed on the stream until no quote has read them for a while.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from headrace.adapters import Context
from headrace.cores import UNREADABLE
from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError, HeadraceError, TransientError
from headrace.model.facts import (
    DECISIONS,
    AccountChanged,
    Confirmed,
    Dead,
    Finalized,
    GapDeclared,
    News,
    Restarted,
    SlotChanged,
    Traded,
)
from headrace.model.updates import Commitment
from headrace.programs.curves import CURVES
from headrace.programs.quoting import CLOCK_SYSVAR, Account, Clock, NoQuoteError, sysvar_clock
from headrace.solana.rpc import ACCOUNTS_PER_CALL_MAX
from headrace.venues.known import KnownPool, KnownPools, derived_pools
from headrace.venues.settings import PoolVenueSettings
from headrace.venues.states import AccountStates
from headrace.venues.supply import PoolState

SLOT_S: Final = 0.4
ROUNDS_MAX: Final = 6
"""Maximum number of times that a node is asked for one quote, because accounts name further accounts."""
ABSENT_S: Final = 30.0
"""Seconds for which a pool that does not exist is not asked for again, unless a trade names it."""
ABSENT_MAX: Final = 10_000
LOOKED_AT_MAX: Final = 20_000
FORK_SLOTS_MAX: Final = 512
"""Most slots by which a fork lies below the newest slot."""
BYTES_MAX: Final = 64 * 1024 * 1024
"""Maximum number of bytes of all versions of accounts; beyond it all are forgotten."""
SILENT_S: Final = 2.0
"""Fewest seconds without a slot after which the stream counts as standing still."""
BEHIND_PROCESSED: Final = 1
"""Slots from the newest slot that surely is complete to the newest slot, whose changes still come."""
BEHIND_OTHER: Final = 4
"""The same for later commitments, whose changes come some time after the news that a slot reached the commitment."""
ANSWERS_MAX: Final = 4_096
"""Maximum number of accounts from a node's answers that are kept without being followed."""
_FEED: Final = "account:"


class FollowedPools:
    """Pools of all programs with a curve. `hear` takes the facts of the stream.

    An account is current if a live connection covers it and the stream's newest slot is at most `max_slots_behind`
    ahead. While the stream stands still or is off, an answer of a node is current for as long as so many slots last.
    """

    def __init__(self, context: Context, programs: Programs, settings: PoolVenueSettings) -> None:
        self._rpc, self._clock, self._feed = context.rpc, context.clock, context.accounts
        self._programs, self._settings = programs, settings
        self._states, self._known = AccountStates(), KnownPools()
        self._head: dict[str, int] = {}  # commitment → newest slot
        self._heard_at = self._clock.monotonic()
        self._corrections = 0
        self._read_at: dict[str, float] = {}
        self._used: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()  # pool → last use, accounts
        self._followed: frozenset[str] = frozenset()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._looked_at: OrderedDict[str, None] = OrderedDict()  # pools whose account was read for its mints
        self._locks: WeakValueDictionary[frozenset[str], asyncio.Lock] = WeakValueDictionary()
        calls = context.metrics.counter("quote_account_calls", "getMultipleAccounts calls for quotes", ("outcome",))
        self._calls = {outcome: calls.labels(outcome) for outcome in ("answered", "failed")}
        context.metrics.gauge("quote_accounts", "Accounts followed on the stream for quotes").set_function(
            lambda: len(self._followed)
        )
        self._detach: Callable[[], None] = _nothing if self._feed is None else self._feed.attach(self.hear)
        self._named = tuple(settings.pools)

    async def close(self) -> None:
        """Follow no account any more."""
        self._detach()
        if self._feed is not None and self._followed:
            self._feed.follow(())
        self._followed = frozenset()

    # Facts.

    def hear(self, news: Sequence[News]) -> None:
        """Take the facts of one update."""
        for each in news:
            if type(each) is AccountChanged:
                self._take(each)
            elif isinstance(each, Traded):
                self._learn(each)
            elif isinstance(each, SlotChanged):
                if each.status == "processed":
                    self._move("processed", each.slot)
                    self._release()
            elif isinstance(each, DECISIONS):
                self._corrections += isinstance(each, Dead)
                if isinstance(each, Confirmed):
                    self._move("confirmed", each.slot)
                elif isinstance(each, Finalized):
                    self._move("finalized", each.slot)
                self._states.decide(each)
            elif isinstance(each, GapDeclared):
                self._states.forget([each.feed.removeprefix(_FEED)])
                self._corrections += each.feed.removeprefix(_FEED) in self._followed
            elif isinstance(each, Restarted):
                self._states.clear()
                self._head.clear()
                self._corrections += 1

    def _move(self, commitment: str, slot: int) -> None:
        head = self._head.get(commitment, 0)
        if slot > head or slot < head - FORK_SLOTS_MAX:  # far below: the head was wrong, and is taken back
            self._head[commitment] = slot
        if self._feed is not None and commitment == self._feed.commitment:
            self._heard_at = self._clock.monotonic()

    def _take(self, fact: AccountChanged) -> None:
        update = fact.update
        curve = CURVES.get(fact.program)
        if update.pubkey in self._followed:
            content = self._decoded(update.owner, update.data)
            self._states.changed(update.pubkey, update.slot, content, certain=fact.origin.certain)
            self._corrections += self._is_live and update.slot <= self._complete
        elif curve is not None and fact.name == curve.account and update.pubkey not in self._looked_at:
            self._looked_at[update.pubkey] = None
            if len(self._looked_at) > LOOKED_AT_MAX:
                self._looked_at.popitem(last=False)
            self._learn_account(update.pubkey, self._decoded(update.owner, update.data))

    def _learn_account(self, key: str, content: Account) -> None:
        """Learn a pool from its account, if that names the mints."""
        curve = CURVES.get(content.program)
        if curve is not None and content.name == curve.account:
            try:
                self._known.learn(key, curve.mints(key, content, {}) or ())
            except BadInputError:
                pass

    def _learn(self, fact: Traded) -> None:
        trade, curve = fact.trade, CURVES.get(fact.seen.event.program)
        if curve is None or trade.mint is None or trade.quote_mint is None or trade.pool is None:
            return  # a trade without a pool is on a curve whose address follows from its mint
        self._known.learn(trade.pool, (trade.mint, trade.quote_mint))
        self._absent.pop(trade.pool, None)

    def _decoded(self, owner: str, data: bytes) -> Account:
        try:
            return Account.of(owner, data, self._programs.account(owner, data))
        except UNREADABLE:
            return Account(owner, data)

    # Quotes.

    def revision(self) -> Hashable:
        """Return a value that changes with each slot whose changes are complete, and with each change of a past slot.

        While the stream stands still or is off, the value changes as often as a node's answer becomes too old.
        """
        if self._is_live:
            return self._complete, self._corrections
        return int(self._clock.monotonic() // self._max_age_s), self._corrections, None

    async def pools(self, mint_in: str, mint_out: str, through: Sequence[str]) -> list[PoolState]:
        """Return the pools of the pair, and known pools over a mint of `through`, each as of one slot."""
        if self._named:
            await self._read_named()
        targets = self._targets(mint_in, mint_out, through)
        found: dict[str, PoolState] = {}
        if left := self._take_current(targets, found):
            pair = frozenset((mint_in, mint_out))
            lock = self._locks.get(pair)
            if lock is None:
                lock = self._locks[pair] = asyncio.Lock()
            async with lock:
                await self._fill(left, found)
        self._use(found.values())
        return list(found.values())

    def _targets(self, mint_in: str, mint_out: str, through: Sequence[str]) -> list[KnownPool]:
        """Return the pools to ask for, without those that lately did not exist."""
        pools = [*self._known.of(mint_in, mint_out), *derived_pools(mint_in, mint_out)]
        for middle in through:
            if middle not in (mint_in, mint_out):
                first, second = self._known.of(mint_in, middle), self._known.of(middle, mint_out)
                pools += [*first, *second] if first and second else []
        now = self._clock.monotonic()
        return list({pool.key: pool for pool in pools if self._absent.get(pool.key, now) <= now}.values())

    async def _read_named(self) -> None:
        """Learn the mints of the pools that the settings name."""
        named = self._named
        for some in batched(named):
            for account in (await self._rpc.read_accounts(some, self._commitment)).accounts:
                if account is not None:
                    self._learn_account(account.pubkey, self._decoded(account.owner, account.data))
        self._named = ()

    def _take_current(
        self, targets: Iterable[KnownPool], found: dict[str, PoolState], *, just_read: bool = False
    ) -> list[KnownPool]:
        """Put the states of pools whose accounts are current into `found`; return the other pools.

        Unless they were `just_read`, accounts that the stream brings by now must be as new as the stream is.
        """
        left = []
        for target in targets:
            state = self._state(target, just_read=just_read)
            if state is not None:
                found[target.key] = state
            elif not self._is_absent(target):
                left.append(target)
        return left

    async def _fill(self, targets: list[KnownPool], found: dict[str, PoolState]) -> None:
        """Ask a node for all accounts of each pool at once, and again while these name further accounts."""
        targets = self._take_current(targets, found)
        for _ in range(ROUNDS_MAX):
            for some in self._in_calls(targets):
                await self._read({key for target in some for key in self._keys(target)})
                self._take_current(some, found, just_read=True)
            targets = [target for target in targets if target.key not in found and not self._is_absent(target)]

    def _in_calls(self, targets: Iterable[KnownPool]) -> list[list[KnownPool]]:
        """Divide pools so that the accounts of each part fit into one call. A pool with more accounts is left out."""
        calls: list[tuple[set[str], list[KnownPool]]] = []
        for target in targets:
            keys = self._keys(target)
            if len(keys) > ACCOUNTS_PER_CALL_MAX:
                continue
            if not calls or len(calls[-1][0] | keys) > ACCOUNTS_PER_CALL_MAX:
                calls.append((set(), []))
            calls[-1][0].update(keys)
            calls[-1][1].append(target)
        return [targets for _, targets in calls]

    async def _read(self, keys: Collection[str]) -> None:
        """Ask a node for accounts as of one slot that is not too old. Raises TransientError if there is none."""
        try:
            answer = await self._rpc.read_accounts(list(keys), self._commitment, min_context_slot=self._floor())
        except HeadraceError as error:
            self._calls["failed"].inc()
            raise TransientError("the accounts of pools can't be read now") from error
        self._calls["answered"].inc()
        now = self._clock.monotonic()
        for key, account in zip(keys, answer.accounts, strict=True):
            content = None if account is None else self._decoded(account.owner, account.data)
            self._states.read(key, answer.slot, content)
            self._read_at[key] = now

    # States.

    @property
    def _commitment(self) -> Commitment:
        return "processed" if self._feed is None else self._feed.commitment

    @property
    def _is_live(self) -> bool:
        """Whether the stream brings slots."""
        silent_s = self._clock.monotonic() - self._heard_at
        return self._commitment in self._head and silent_s <= max(SILENT_S, self._max_age_s)

    @property
    def _max_age_s(self) -> float:
        return self._settings.max_slots_behind * SLOT_S

    def _floor(self) -> int | None:
        """Return the oldest slot whose state is current; None while the newest slot is not known."""
        return max(0, self._head[self._commitment] - self._settings.max_slots_behind) if self._is_live else None

    def _keys(self, target: KnownPool) -> frozenset[str]:
        """Return the accounts that a quote reads, as far as the known accounts show."""
        accounts = self._newest({target.key, CLOCK_SYSVAR, *target.mints})
        pool = accounts.get(target.key)
        curve = None if pool is None else CURVES.get(pool.program)
        keys = {target.key, CLOCK_SYSVAR, *target.mints}
        while curve is not None:
            try:
                more = keys.union(curve.needs(target.key, accounts))
            except (NoQuoteError, BadInputError):
                break
            if more == keys:
                break
            keys = more
            accounts = self._newest(keys)
        return frozenset(keys)

    def _newest(self, keys: Iterable[str]) -> dict[str, Account]:
        known = {key: self._states.get(key) for key in keys}
        return {key: each.newest for key, each in known.items() if each is not None and each.newest is not None}

    def _is_absent(self, target: KnownPool) -> bool:
        """Return whether a node lately answered that the pool does not exist, or is no pool."""
        known, read_at = self._states.get(target.key), self._read_at.get(target.key)
        now = self._clock.monotonic()
        if known is None or read_at is None or now - read_at > self._max_age_s:
            return False
        pool = known.newest
        if pool is not None and pool.program in CURVES and pool.name == CURVES[pool.program].account:
            return False
        self._absent[target.key] = now + ABSENT_S
        self._absent.move_to_end(target.key)
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)
        return True

    def _state(self, target: KnownPool, *, just_read: bool) -> PoolState | None:
        """Return the pool as of the newest slot at which all its accounts are known; None if that is too old."""
        keys = self._keys(target)
        known = {key: each for key in keys if (each := self._states.get(key)) is not None}
        if len(known) < len(keys):
            return None
        if self._is_live:
            for key in keys:
                self._extend(key)
        slot = min(each.upto for each in known.values())
        if slot < max(each.first for each in known.values()):
            return None
        floor, now = self._floor(), self._clock.monotonic()
        if floor is None:
            if any(now - self._read_at.get(key, -math.inf) > self._max_age_s for key in keys):
                return None
        elif slot < floor or (not just_read and slot < self._complete and self._covers(keys)):
            return None
        accounts = {key: content for key, each in known.items() if (content := each.at(slot)) is not None}
        pool = accounts.get(target.key)
        curve = None if pool is None else CURVES.get(pool.program)
        if pool is None or curve is None or pool.name != curve.account:
            return None
        sysvar = accounts.pop(CLOCK_SYSVAR, None)
        clock = Clock(slot, None) if sysvar is None else sysvar_clock(sysvar.data)
        return PoolState(target.key, pool.program, target.mints, accounts, clock, slot)

    def _extend(self, key: str) -> None:
        """Extend what is known of an account to the slots that a connection covers and that all facts came of."""
        known = self._states.get(key)
        if known is None or self._feed is None or key not in self._followed:
            return
        for cover in self._feed.covers(key):
            if cover.first <= known.upto + 1:
                self._states.extend(key, min(cover.upto, self._complete))

    @property
    def _complete(self) -> int:
        """The newest slot of which all changes have come."""
        behind = BEHIND_PROCESSED if self._commitment == "processed" else BEHIND_OTHER
        return self._head[self._commitment] - behind

    def _covers(self, keys: Collection[str]) -> bool:
        """Return whether the stream brings these accounts by now."""
        feed = self._feed
        return feed is not None and all(key in self._followed and feed.covers(key) for key in keys)

    # Following.

    def _use(self, states: Iterable[PoolState]) -> None:
        """Follow the accounts of these pools, and no longer those of pools quoted longest ago if there are too many."""
        now = self._clock.monotonic()
        for state in states:
            self._used[state.key] = now, self._keys(KnownPool(state.key, state.mints))
            self._used.move_to_end(state.key)
        self._release()

    def _release(self) -> None:
        """Release pools that nobody quoted for a while, and those beyond the bounds."""
        now = self._clock.monotonic()
        while self._used and next(iter(self._used.values()))[0] + self._settings.idle_s < now:
            self._used.popitem(last=False)
        followed = self._union()
        while self._used and len(followed) > self._settings.accounts_max:
            self._used.popitem(last=False)
            followed = self._union()
        if followed != self._followed or len(self._read_at) > ANSWERS_MAX:
            gone = [key for key in self._read_at if key not in followed]
            self._states.forget(gone)
            for key in gone:
                del self._read_at[key]
        if self._states.size > BYTES_MAX:  # a node or the stream will bring again what is needed
            self._states.clear()
        if followed != self._followed:
            self._followed = followed
            if self._feed is not None:
                self._feed.follow(sorted(followed))

    def _union(self) -> frozenset[str]:
        return frozenset[str]().union(*[keys for _, keys in self._used.values()])


def _nothing() -> None:
    """Do nothing: no feed was attached to."""


def batched(keys: Sequence[str]) -> list[list[str]]:
    """Return the keys in lists that fit into one call."""
    return [list(keys[at : at + ACCOUNTS_PER_CALL_MAX]) for at in range(0, len(keys), ACCOUNTS_PER_CALL_MAX)]
