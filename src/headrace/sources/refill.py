"""Refills a feed's gaps from the ledger: bounded, oldest first, without transactions that were already delivered."""

from collections.abc import Container, Sequence
from functools import partial
from typing import Any, Final

from headrace.model.errors import HeadraceError
from headrace.model.keys import SYSTEM_PROGRAM
from headrace.model.updates import AccountUpdate, SlotUpdate
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import ACCOUNTS_PER_CALL_MAX, AccountInfo, SignatureInfo
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.ledger import Fetched, Ledger, ends_of, why
from headrace.sources.subscriptions import LISTED, ChainSubscription

RECENT_MAX: Final = 16_384
SLOTS_MAX: Final = 50_000
"""Maximum number of slots of one gap that are published again. Nodes list at most ten times as many."""


class Recent:
    """Transactions delivered recently, by feed, each with its slot, so that a refill need not fetch them again."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[str, int]] = {}

    def remember(self, feed: str, signature: str, slot: int) -> None:
        """Remember a delivered transaction. If there are more than RECENT_MAX, the oldest is forgotten."""
        slots = self._slots.get(feed)
        if slots is None:
            slots = self._slots[feed] = {}
        slots[signature] = slot
        if len(slots) > RECENT_MAX:
            del slots[next(iter(slots))]

    def has(self, feed: str, signature: str) -> bool:
        """Return whether a transaction was delivered, in any slot."""
        return signature in self._slots.get(feed, ())

    def keep(self, feeds: Container[str]) -> None:
        """Forget all feeds but `feeds`."""
        self._slots = {feed: slots for feed, slots in self._slots.items() if feed in feeds}

    def delivered(self, feed: str, info: SignatureInfo) -> bool:
        """Return whether a transaction was delivered in exactly this slot (a dead fork may have it in another)."""
        return self._slots.get(feed, {}).get(info.signature) == info.slot


class Refill:
    """Delivers to `outlet` what the ledger still has for some holes.

    `fill` returns a description of what could not be fetched; empty if everything was delivered. It raises
    HeadraceError if nothing could be fetched.
    """

    def __init__(self, ledger: Ledger, *, outlet: Outlet, recent: Recent) -> None:
        self._ledger, self._outlet, self._recent = ledger, outlet, recent
        self._name, self._rpc, self._clock = ledger.name, ledger.rpc, ledger.clock
        self._settings, self._metrics = ledger.settings, ledger.metrics

    async def fill(self, subscription: ChainSubscription, holes: list[Hole], pubkeys: Sequence[str] = ()) -> list[str]:
        """Fill holes of one feed. Several holes need one listing. The current states of `pubkeys` are delivered."""
        deadline = self._ledger.deadline()
        if subscription.kind in LISTED:
            return await self._fill_logs(subscription, holes, deadline)
        if subscription.kind == "account":
            return await self._fill_account(subscription, holes, deadline)
        if subscription.kind == "slots":
            return await self._fill_slots(subscription, holes, deadline)
        await self._reread(subscription, pubkeys, ends_of(holes)[1], deadline)
        return ["nodes keep no older versions of accounts"]

    async def _fill_logs(self, subscription: ChainSubscription, holes: list[Hole], deadline: float) -> list[str]:
        from_slot, to_slot = ends_of(holes)
        await self._ledger.reach(to_slot, deadline)
        lacks = await self._ledger.pruned(from_slot, deadline)
        listing = self._ledger.listing(subscription.key, holes)
        limit = self._settings.refill_signatures_max
        pages_max, pace_s = self._settings.refill_pages_max, self._settings.refill_page_s
        while not listing.complete:
            if listing.calls >= pages_max:
                lacks.append(f"more than {pages_max} pages of transactions")
                break
            if listing.calls and pace_s:
                await self._clock.sleep(pace_s)
            try:
                await self._ledger.again(listing.page, deadline)
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
        self, subscription: ChainSubscription, found: list[SignatureInfo], deadline: float
    ) -> tuple[int, int]:
        """Fetch transactions and deliver them, oldest first. Return how many are missing and how many are not whole."""
        missing = poor = 0
        for start in range(0, len(found), self._settings.refill_parallel):
            if self._clock.monotonic() >= deadline:
                return missing + len(found) - start, poor
            chunk = found[start : start + self._settings.refill_parallel]
            async with Supervisor(self._clock) as tasks:
                fetches: list[Any] = [
                    tasks.start(
                        self._name,
                        "fetch",
                        partial(self._ledger.transaction, subscription.feed, info.signature, deadline, slot=info.slot),
                    )
                    for info in chunk
                ]
            for info, fetch in zip(chunk, fetches, strict=True):
                fetched: Fetched = fetch.result()
                poor += not fetched.whole
                missing += fetched.whole and fetched.update is None
                if fetched.update is not None:
                    await self._outlet.put(fetched.update)
                    self._metrics.refilled(self._name)
                    if fetched.whole:
                        self._recent.remember(subscription.feed, info.signature, info.slot)
        return missing, poor

    async def _fill_account(self, subscription: ChainSubscription, holes: list[Hole], deadline: float) -> list[str]:
        """Deliver the state after the gap. The versions within the gap are gone."""
        to_slot = ends_of(holes)[1]
        read = partial(self._rpc.get_account_info, subscription.key, self._ledger.commitment, min_context_slot=to_slot)
        found = await self._ledger.again(read, deadline)
        await self._put_account(subscription, subscription.key, to_slot, found)
        return ["intermediate versions"]

    async def _reread(
        self, subscription: ChainSubscription, pubkeys: Sequence[str], to_slot: int, deadline: float
    ) -> None:
        """Deliver the current states of a program's accounts, of those that still exist."""
        distinct = list(dict.fromkeys(pubkeys))
        for start in range(0, len(distinct), ACCOUNTS_PER_CALL_MAX):
            some = distinct[start : start + ACCOUNTS_PER_CALL_MAX]
            read = partial(self._rpc.get_multiple_accounts, some, self._ledger.commitment, min_context_slot=to_slot)
            for pubkey, found in zip(some, await self._ledger.again(read, deadline), strict=True):
                if found is not None and found.owner == subscription.key:
                    await self._put_account(subscription, pubkey, to_slot, found)

    async def _put_account(
        self, subscription: ChainSubscription, pubkey: str, to_slot: int, found: AccountInfo | None
    ) -> None:
        await self._outlet.put(
            AccountUpdate(
                source=self._name,
                feed=subscription.feed,
                received_ns=self._clock.wall_ns(),
                slot=found.slot if found else to_slot,
                pubkey=pubkey,
                owner=found.owner if found else SYSTEM_PROGRAM,
                lamports=found.lamports if found else 0,
                data=found.data if found else b"",
                executable=found.executable if found else False,
                commitment=self._ledger.commitment,
            )
        )
        self._metrics.refilled(self._name)

    async def _fill_slots(self, subscription: ChainSubscription, holes: list[Hole], deadline: float) -> list[str]:
        from_slot, to_slot = ends_of(holes)
        await self._ledger.reach(to_slot, deadline)
        lacks = await self._ledger.pruned(from_slot, deadline)
        if to_slot - from_slot >= SLOTS_MAX:
            from_slot = to_slot - SLOTS_MAX + 1
            lacks.append(f"more than {SLOTS_MAX} slots")
        blocks = await self._ledger.again(
            partial(self._rpc.get_blocks, from_slot, to_slot, self._ledger.commitment), deadline
        )
        parent: int | None = None
        for slot in blocks:
            update = SlotUpdate(
                source=self._name,
                feed=subscription.feed,
                received_ns=self._clock.wall_ns(),
                slot=slot,
                status=self._ledger.commitment,
                parent=parent,
            )
            await self._outlet.put(update)
            parent = slot
        return lacks
