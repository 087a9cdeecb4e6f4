"""Reads from the ledger, over HTTP, what a feed missed: bounded, patient with nodes that are behind, oldest first."""

from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from headrace.model.errors import BadInputError, HeadraceError, TransientError
from headrace.model.keys import SYSTEM_PROGRAM
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, SlotUpdate, TransactionUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import (
    ACCOUNTS_PER_CALL_MAX,
    OTHER_ANSWER,
    SIGNATURES_PER_CALL_MAX,
    AccountInfo,
    Rpc,
    RpcError,
    SignatureInfo,
)
from headrace.solana.rpc_bodies import TOO_LARGE
from headrace.solana.stored import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.metrics import Tally
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings
from headrace.sources.subscriptions import LISTED, Subscription

T = TypeVar("T")

RECENT_MAX: Final = 16_384
NULL_TRIES: Final = 6
"""A transaction that a node lists but cannot give is asked for so often, each pause twice the last."""
SLOTS_MAX: Final = 50_000
"""The most slots of one gap that are told again; nodes list at most ten times as many."""
_PAGE_MIN: Final = 10
_PAUSE_S_MAX: Final = 8.0

_log = structlog.get_logger("source")


class Recent:
    """Which transactions of which slot were delivered lately, per feed, so that a refill need not fetch them again."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[str, int]] = {}

    def remember(self, feed: str, signature: str, slot: int) -> None:
        """It was delivered; the oldest of more than RECENT_MAX is forgotten."""
        slots = self._slots.get(feed)
        if slots is None:
            slots = self._slots[feed] = {}
        slots[signature] = slot
        if len(slots) > RECENT_MAX:
            del slots[next(iter(slots))]

    def has(self, feed: str, signature: str) -> bool:
        """Return whether it was delivered, as of whatever slot."""
        return signature in self._slots.get(feed, ())

    def keep(self, feeds: Container[str]) -> None:
        """Forget all other feeds."""
        self._slots = {feed: slots for feed, slots in self._slots.items() if feed in feeds}

    def delivered(self, feed: str, info: SignatureInfo) -> bool:
        """Whether it was delivered as of this very slot (on a fork that died it may have been in another)."""
        return self._slots.get(feed, {}).get(info.signature) == info.slot


class Fetched(NamedTuple):
    """What the ledger has of a transaction: None if nothing; `whole` is False where no node stored its events."""

    update: TransactionUpdate | LogsUpdate | None = None
    whole: bool = True


class Ledger:
    """Delivers to `outlet` what the ledger still has of some holes. Each `fill` returns what could not be had, in
    words, empty if everything was delivered; it raises HeadraceError if it got nowhere.
    """

    def __init__(
        self,
        name: str,
        rpc: Rpc,
        *,
        settings: RpcPubSubSettings,
        clock: Clock,
        outlet: Outlet,
        tally: Tally,
        recent: Recent,
    ) -> None:
        self.name, self._rpc = name, rpc
        self._settings, self._clock, self._outlet, self._tally = settings, clock, outlet, tally
        self._recent = recent
        self._commitment: Commitment = "finalized" if settings.commitment == "finalized" else "confirmed"

    async def fill(self, subscription: Subscription, holes: list[Hole], pubkeys: Sequence[str] = ()) -> list[str]:
        """Fill holes of one feed; several at once cost one listing. Of `pubkeys` the present states are delivered."""
        deadline = self._clock.monotonic() + self._settings.refill_s
        if subscription.kind in LISTED:
            return await self._fill_logs(subscription, holes, deadline)
        if subscription.kind == "account":
            return await self._fill_account(subscription, holes, deadline)
        if subscription.kind == "slots":
            return await self._fill_slots(subscription, holes, deadline)
        await self._reread(subscription, pubkeys, _ends(holes)[1], deadline)
        return ["nodes keep no older versions of accounts"]

    async def fetch(self, subscription: Subscription, *, tries: int = NULL_TRIES) -> Fetched:
        """The transaction of a `signature:` subscription, if the ledger has it."""
        deadline = self._clock.monotonic() + self._settings.refill_s
        return await self._fetch(subscription, deadline, subscription.key, tries=tries)

    async def _fill_logs(self, subscription: Subscription, holes: list[Hole], deadline: float) -> list[str]:
        from_slot, to_slot = _ends(holes)
        await self._reach(to_slot, deadline)
        lacks = await self._pruned(from_slot, deadline)
        listing = _Listing(self._rpc, subscription.key, holes, self._commitment)
        limit = self._settings.refill_signatures_max
        pages_max, pace_s = self._settings.refill_pages_max, self._settings.refill_page_s
        while not listing.complete:
            if listing.calls == pages_max:
                lacks.append(f"more than {pages_max} pages of transactions")
                break
            if listing.calls and pace_s:
                await self._clock.sleep(pace_s)
            try:
                await self._again(listing.page, deadline)
            except HeadraceError as error:
                lacks.append(why(error))
                break
            listing.found = [info for info in listing.found if not self._recent.delivered(subscription.feed, info)]
            if len(listing.found) > limit:
                lacks.append(f"more than {limit} transactions")
                listing.found = listing.found[:limit]
                break
            if self._clock.monotonic() >= deadline:
                lacks.append("the listing took too long")
                break
        missing, poor = await self._deliver(subscription, listing.found[::-1], deadline)
        if missing:
            lacks.append(f"{missing} of {len(listing.found)} transactions not found")
        if poor:
            lacks.append(f"{poor} of {len(listing.found)} transactions without their events")
        return lacks

    async def _deliver(
        self, subscription: Subscription, found: list[SignatureInfo], deadline: float
    ) -> tuple[int, int]:
        """Fetch and put on the outlet, oldest first; returns how many could not be had, and of how many only a part."""
        missing = poor = 0
        for start in range(0, len(found), self._settings.refill_parallel):
            if self._clock.monotonic() >= deadline:
                return missing + len(found) - start, poor
            chunk = found[start : start + self._settings.refill_parallel]
            async with Supervisor(self._clock) as tasks:
                fetches: list[Any] = [
                    tasks.start(
                        self.name, "fetch", partial(self._fetch, subscription, deadline, info.signature, info.slot)
                    )
                    for info in chunk
                ]
            for info, fetch in zip(chunk, fetches, strict=True):
                fetched: Fetched = fetch.result()
                poor += not fetched.whole
                missing += fetched.whole and fetched.update is None
                if fetched.update is not None:
                    await self._outlet.put(fetched.update)
                    self._tally.refilled(self.name)
                    if fetched.whole:
                        self._recent.remember(subscription.feed, info.signature, info.slot)
        return missing, poor

    async def _fetch(
        self,
        subscription: Subscription,
        deadline: float,
        signature: str,
        slot: int | None = None,
        *,
        tries: int = NULL_TRIES,
    ) -> Fetched:
        """Return the transaction of `signature`, in `slot` if that is given, as far as some node gives it."""
        backoff = self._backoff()
        try:
            for _ in range(tries):
                get = partial(self._get, signature, slot)
                result = await self._again(get, deadline)
                if result is not None:
                    lacks = not_stored(result)
                    if isinstance(result, dict) and result.get("meta", lacks) is None:
                        return Fetched(whole=False)
                    update = transaction_from_rpc(
                        result,
                        source=self.name,
                        feed=subscription.feed,
                        received_ns=self._clock.wall_ns(),
                        commitment=self._commitment,
                    )
                    return Fetched(shown_by(update, lacks), whole=not lacks)
                if tries > 1:
                    await self._clock.sleep(backoff.next_s())
        except BadInputError as error:
            self._tally.bad(self.name, error.reason)
        except (RpcError, TransientError) as error:
            _log.debug("transaction_not_had", signature=signature, error=str(error))
        return Fetched()

    async def _get(self, signature: str, slot: int | None) -> Any:
        """The node's result; None where it has none, or another transaction, or this one in another slot."""
        try:
            result = await self._rpc.get_transaction(signature, self._commitment)
        except BadInputError as error:
            if error.reason != OTHER_ANSWER:
                raise
            self._tally.bad(self.name, error.reason)
            return None
        if slot is not None and isinstance(result, dict) and result.get("slot") != slot:
            self._tally.bad(self.name, "other_slot")
            return None
        return result

    async def _fill_account(self, subscription: Subscription, holes: list[Hole], deadline: float) -> list[str]:
        """The state after the gap can be read; the versions within it are gone."""
        to_slot = _ends(holes)[1]
        read = partial(self._rpc.get_account_info, subscription.key, self._commitment, min_context_slot=to_slot)
        found = await self._again(read, deadline)
        await self._put_account(subscription, subscription.key, to_slot, found)
        return ["intermediate versions"]

    async def _reread(self, subscription: Subscription, pubkeys: Sequence[str], to_slot: int, deadline: float) -> None:
        """Deliver the present states of accounts of a program, those that still exist."""
        distinct = list(dict.fromkeys(pubkeys))
        for start in range(0, len(distinct), ACCOUNTS_PER_CALL_MAX):
            some = distinct[start : start + ACCOUNTS_PER_CALL_MAX]
            read = partial(self._rpc.get_multiple_accounts, some, self._commitment, min_context_slot=to_slot)
            for pubkey, found in zip(some, await self._again(read, deadline), strict=True):
                if found is not None and found.owner == subscription.key:
                    await self._put_account(subscription, pubkey, to_slot, found)

    async def _put_account(
        self, subscription: Subscription, pubkey: str, to_slot: int, found: AccountInfo | None
    ) -> None:
        await self._outlet.put(
            AccountUpdate(
                source=self.name,
                feed=subscription.feed,
                received_ns=self._clock.wall_ns(),
                slot=found.slot if found else to_slot,
                pubkey=pubkey,
                owner=found.owner if found else SYSTEM_PROGRAM,
                lamports=found.lamports if found else 0,
                data=found.data if found else b"",
                executable=found.executable if found else False,
                commitment=self._commitment,
            )
        )
        self._tally.refilled(self.name)

    async def _fill_slots(self, subscription: Subscription, holes: list[Hole], deadline: float) -> list[str]:
        from_slot, to_slot = _ends(holes)
        await self._reach(to_slot, deadline)
        lacks = await self._pruned(from_slot, deadline)
        if to_slot - from_slot >= SLOTS_MAX:
            from_slot = to_slot - SLOTS_MAX + 1
            lacks.append(f"more than {SLOTS_MAX} slots")
        blocks = await self._again(partial(self._rpc.get_blocks, from_slot, to_slot, self._commitment), deadline)
        parent: int | None = None
        for slot in blocks:
            update = SlotUpdate(
                source=self.name,
                feed=subscription.feed,
                received_ns=self._clock.wall_ns(),
                slot=slot,
                status=self._commitment,
                parent=parent,
            )
            await self._outlet.put(update)
            parent = slot
        return lacks

    async def _reach(self, slot: int, deadline: float) -> None:
        """Wait until the ledger's confirmed end is past `slot`, with room for the node to index it."""
        goal = slot + self._settings.refill_settle_slots
        backoff = self._backoff()
        while await self._again(partial(self._rpc.get_slot, self._commitment), deadline) < goal:
            if self._clock.monotonic() >= deadline:
                raise TransientError(f"slot {goal} was not {self._commitment} in time")
            await self._clock.sleep(backoff.next_s())

    async def _pruned(self, from_slot: int, deadline: float) -> list[str]:
        """A node that has thrown old blocks away lists what is left without a word; so ask where its ledger begins."""
        try:
            first = await self._again(self._rpc.get_first_available_block, deadline)
        except RpcError:
            return []  # not every provider answers this; those that keep a whole archive are the usual case
        return [f"the node's ledger begins at slot {first}"] if first > from_slot else []

    async def _again(self, ask: Callable[[], Awaitable[T]], deadline: float) -> T:
        """`ask` until it answers, fails for good, or the deadline passes: then the last failure is raised."""
        backoff = self._backoff()
        while True:
            try:
                return await ask()
            except TransientError as error:
                pause_s = max(backoff.next_s(), error.retry_after_s or 0.0)
                if self._clock.monotonic() + pause_s >= deadline:
                    raise
            await self._clock.sleep(pause_s)

    def _backoff(self) -> Backoff:
        initial_s = self._settings.refill_retry_s
        return Backoff(initial_s, max(initial_s, _PAUSE_S_MAX))


class _Listing:
    """Signatures of an address within some holes, newest first, a page at a time. `calls` counts the requests."""

    def __init__(self, rpc: Rpc, address: str, holes: list[Hole], commitment: Commitment) -> None:
        self._rpc, self._address, self._holes, self._commitment = rpc, address, holes, commitment
        self._from_slot, self._to_slot = _ends(holes)
        self._last: SignatureInfo | None = None
        self._last_page: set[str] = set()
        self._newest_slot = self._to_slot
        self._limit = SIGNATURES_PER_CALL_MAX
        self.found: list[SignatureInfo] = []
        self.calls = 0
        self.complete = False

    async def page(self) -> None:
        """Fetch the next older page; sets `complete` when it reaches past the holes or the history's beginning.

        A page that is too long comes in smaller ones, as anyone may fill transactions with long memos. Raises
        BadInputError where the node does not go on from the last page: gives it again, or something newer.
        """
        self.calls += 1
        try:
            infos = await self._rpc.get_signatures_for_address(
                self._address,
                before=self._last.signature if self._last else None,
                limit=self._limit,
                commitment=self._commitment,
                min_context_slot=self._newest_slot,  # a node that does not know `before` answers with an empty page
            )
        except BadInputError as error:
            if error.reason != TOO_LARGE or self._limit <= _PAGE_MIN:
                raise
            self._limit //= 4
            return
        if not infos:
            self.complete = True
            return
        page = {info.signature for info in infos}
        if self._last is not None and (infos[0].slot > self._last.slot or not page.isdisjoint(self._last_page)):
            raise BadInputError(OTHER_ANSWER, "getSignaturesForAddress: a page that does not follow the last one")
        self._last, self._last_page = infos[-1], page
        self._newest_slot = max(self._newest_slot, infos[0].slot)
        self.complete = infos[-1].slot < self._from_slot
        self.found += [
            SignatureInfo(info.signature, info.slot)  # errors may be long, and nobody asks for them here
            for info in infos
            if any(hole.from_slot <= info.slot <= hole.to_slot for hole in self._holes)
        ]


def shown_by(update: TransactionUpdate, lacks: Container[str]) -> TransactionUpdate | LogsUpdate | None:
    """Return what a transaction shows in full although parts of it were not stored, so that a whole view that comes
    later is no repeat: its logs alone where the inner instructions are lacking, nothing where both are."""
    if "innerInstructions" not in lacks:
        return update
    if update.logs is None:
        return None
    return LogsUpdate(
        source=update.source,
        feed=update.feed,
        received_ns=update.received_ns,
        slot=update.slot,
        signature=update.signature,
        err=update.err,
        logs=update.logs,
        commitment=update.commitment,
    )


def why(error: HeadraceError) -> str:
    """The error in words that may go out to anyone: no endpoint, no text of the node's."""
    if isinstance(error, RpcError):
        return f"the node refused ({error.code})"
    if isinstance(error, BadInputError):
        return f"the node's answer was unusable ({error.reason})"
    return "the node did not answer in time"


def _ends(holes: list[Hole]) -> tuple[int, int]:
    return min(hole.from_slot for hole in holes), max(hole.to_slot for hole in holes)
