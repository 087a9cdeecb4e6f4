"""Transactions as facts: events, their trades and tokens, and each transaction itself. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from headrace.cores import UNREADABLE, Core, EventText, TransactionText, Unread
from headrace.cores.bodies import TransactionFrame, path_text, transaction_body
from headrace.decoders.logs import TRUNCATED
from headrace.decoders.registry import Programs
from headrace.ingest.awaited import AwaitedPools
from headrace.ingest.chain_time import ChainTime
from headrace.ingest.dedupe import CUT_LOGS, INSTRUCTIONS, LOGS, Extent, Standing
from headrace.ingest.known import UNKNOWN, Mints, Pools
from headrace.ingest.trades import is_repeated, on_behalf, trade_of
from headrace.model.events import DecodedEvent, NamedInstruction
from headrace.model.facts import EventSeen, News, Origin, TokenCreated, Traded, TransactionSeen
from headrace.model.trades import Trade
from headrace.model.updates import Commitment, LogsUpdate, TransactionUpdate
from headrace.programs.meanings import EventFacts, Scene, Swap
from headrace.programs.register import EVENTS

INCOMPLETE: Final = "incomplete"
UNKNOWN_POOL: Final = "unknown_pool"
RECENT_MAX: Final = 256
"""Maximum number of transactions whose decoded form is kept for other feeds, which deliver them shortly afterwards."""

_LOGS_ONLY: Final = Scene()


class Found:
    """New facts in one update of a transaction.

    `extents` says for each event of the update how much of it is known now. `awaited` are pools, with their programs,
    whose mints must be requested first.
    """

    __slots__ = ("awaited", "extents", "facts", "unread")

    def __init__(self) -> None:
        self.facts: list[News] = []
        self.extents: list[Extent] = []
        self.unread: list[Unread] = []
        self.awaited: list[tuple[str, str]] = []


class _Draft(msgspec.Struct, frozen=True, gc=False):
    """A trade whose place among the facts is reserved until everything about mints in the transaction is learned."""

    at: int
    seen: EventSeen
    trade: Trade
    again: bool


def visible_parts(update: LogsUpdate | TransactionUpdate) -> int:
    """Return the parts of its transaction that the update shows, as bits of `dedupe`."""
    parts = INSTRUCTIONS if isinstance(update, TransactionUpdate) else 0
    if update.logs is not None:
        parts |= CUT_LOGS if TRUNCATED in update.logs else LOGS
    return parts


def is_cut(parts: int) -> bool:
    """Return whether a node cut the log lines of an update that shows these parts."""
    return parts & LOGS == CUT_LOGS


def feed_key(feed: str) -> str:
    """Return the key of a feed of transactions; empty for other feeds."""
    kind, _, key = feed.partition(":")
    return key if kind in ("logs", "transactions") else ""


class TransactionReader:
    """Reads transactions and adds what is known about their mints. Learns the mints of pools, and facts about mints."""

    def __init__(self, programs: Programs, core: Core, pools: Pools, mints: Mints, awaited: AwaitedPools) -> None:
        self.programs, self._core, self._awaited = programs, core, awaited
        self._pools, self._mints = pools, mints
        self._times = ChainTime()
        self._with_events = frozenset(p.program_id for p in programs.by_id.values() if p.events)
        self._feed, self._several = "", False
        self._recent: dict[tuple[int, str, int], TransactionSeen] = {}

    def read(self, update: LogsUpdate | TransactionUpdate, parts: int, origin: Origin) -> TransactionText:
        """Return the transaction and its events in the form of their messages."""
        return self._core.transaction(update, origin, truncated=is_cut(parts))

    def facts(
        self,
        update: LogsUpdate | TransactionUpdate,
        parts: int,
        origin: Origin,
        text: TransactionText,
        standings: Sequence[Standing],
        answered: str | None = None,
    ) -> Found:
        """Return the facts of the transaction; of its events, only what `standings` do not list as published.

        `answered` is a pool that this update waited for. Then all facts but that pool's trades are known.
        """
        whole = update if isinstance(update, TransactionUpdate) else None
        reading = _Reading(self, update, whole, origin, answered)
        if whole is not None:
            reading.instructions = {instruction.path: instruction for instruction in text.instructions}
            reading.mints = {
                held.account: held.mint for held in (*whole.pre_token_balances, *whole.post_token_balances)
            }
        events, found = [each.event for each in text.events], reading.found
        for each, standing in zip(text.events, standings, strict=True):
            extent = standing.extent
            found.extents.append(extent if extent == "all" else reading.event(each, standing, events))
        if reading.drafts:
            self._complete(reading)
        if answered is None:
            found.facts.append(self._whole(update, parts, origin, events, text))
        return found

    def _complete(self, reading: "_Reading") -> None:
        """Complete the trades with what is known about their mints."""
        update, facts = reading.update, reading.found.facts
        if reading.whole is not None and any(draft.trade.mint is not None for draft in reading.drafts):
            self._mints.learn_balances(reading.whole.post_token_balances)
        for draft in reading.drafts:
            seen, trade = draft.seen, draft.trade
            named = trade.mint is not None and trade.quote_mint is not None
            base = UNKNOWN if trade.mint is None else self._mints.of(trade.mint)
            quote = UNKNOWN if trade.quote_mint is None else self._mints.of(trade.quote_mint)
            time_s = self._times.of(update, seen.event.data, learn=named)
            facts[draft.at] = Traded(seen, trade, time_s, base, quote, draft.again)

    def _whole(
        self,
        update: LogsUpdate | TransactionUpdate,
        parts: int,
        origin: Origin,
        events: Sequence[DecodedEvent],
        text: TransactionText,
    ) -> TransactionSeen:
        """Return the transaction itself, for each of its programs that has events, and for the key of its feed."""
        program_ids = self._programs_of(events, text.instructions)
        if key := feed_key(update.feed):
            program_ids[key] = None
        whole = _transaction(update, parts, origin, events, text, program_ids)
        if update.feed != self._feed:
            self._several, self._feed = self._several or self._feed != "", update.feed
        if self._several:
            self._remember((update.slot, update.signature, parts), whole)
        return whole

    def _remember(self, key: tuple[int, str, int], whole: TransactionSeen) -> None:
        """Keep the decoded form for a while: another of several feeds may deliver the same transaction."""
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[key] = whole

    def for_feed(
        self, update: LogsUpdate | TransactionUpdate, parts: int, commitment: Commitment
    ) -> TransactionSeen | None:
        """Return the transaction for the key of its feed only; None if the key is one of its programs."""
        self._several = True
        key = feed_key(update.feed)
        if not key:
            return None
        recent = self._recent.get((update.slot, update.signature, parts))
        origin = origin_of(update, commitment)
        if recent is None or recent.update.logs != update.logs:
            text = self.read(update, parts, origin)
            recent = _transaction(update, parts, origin, [each.event for each in text.events], text, ())
        if key in self._programs_of(recent.events, recent.instructions):
            return None
        frame, cut = TransactionFrame(origin), is_cut(parts)
        body = transaction_body(update, frame, recent.events, recent.instructions, truncated=cut)
        return msgspec.structs.replace(recent, origin=origin, update=update, body=body, program_ids=(key,))

    def _programs_of(self, events: Iterable[DecodedEvent], instructions: Iterable[NamedInstruction]) -> dict[str, None]:
        """Return the programs as a dict, used as a set that keeps its order."""
        program_ids = {event.program_id: None for event in events}
        program_ids.update({i.program_id: None for i in instructions if i.program_id in self._with_events})
        return program_ids


class _Reading:
    """One update of a transaction while its events are read."""

    __slots__ = (
        "_answered", "_awaited", "_mints", "_pools", "_prefix", "drafts", "found", "instructions", "mints", "origin",
        "update", "whole",
    )  # fmt: skip

    def __init__(
        self,
        reader: TransactionReader,
        update: LogsUpdate | TransactionUpdate,
        whole: TransactionUpdate | None,
        origin: Origin,
        answered: str | None,
    ) -> None:
        self._pools, self._mints, self._awaited = reader._pools, reader._mints, reader._awaited
        self.update, self.whole, self._answered = update, whole, answered
        self.origin = origin
        self._prefix = f"{update.slot}:{update.signature}:"
        self.instructions: Mapping[tuple[int, ...], NamedInstruction] = {}
        self.mints: Mapping[str, str] = {}
        self.found = Found()
        self.drafts: list[_Draft] = []

    def event(self, text: EventText, standing: Standing, events: Sequence[DecodedEvent]) -> Extent:
        """Add the facts of the event beyond its extent; return how much of it is known then.

        An event whose meaning can't be read is still a fact.
        """
        (path, ordinal), extent = standing.place, standing.extent
        event, body = text.event, text.body
        if (path, ordinal) != (event.path, event.ordinal):  # published under another place from an earlier update
            body = TransactionFrame(self.origin).event(event, path, ordinal, body.fields_json)
        seen = EventSeen(f"{self._prefix}{path_text(path)[0]}:{ordinal}", self.origin, event, body)
        if extent == "nothing":
            self.found.facts.append(seen)
            extent = "event"
        meaning = EVENTS.get((event.program, event.name))
        if meaning is None:
            return "all"
        try:
            self._pools.learn_event(event, meaning)
            if meaning.trade is None or (len(events) > 1 and is_repeated(event, meaning.repeats, events)):
                return self._token(seen, meaning, self._scene(event))
            scene = self._scene(event)
            swap = meaning.trade(event.data, scene)
            if swap is None:
                return self._token(seen, meaning, scene)
            return self._swap(seen, meaning, scene, swap, extent)
        except UNREADABLE as error:
            self.found.unread.append(Unread.of(event.program, event.name, error))
            return extent

    def _scene(self, event: DecodedEvent) -> Scene:
        if not self.instructions:
            return _LOGS_ONLY
        emitter = self.instructions.get(event.path)
        return Scene({} if emitter is None else emitter.accounts, self.mints)

    def _swap(self, seen: EventSeen, meaning: EventFacts, scene: Scene, swap: Swap, extent: Extent) -> Extent:
        """Add the trade. Nothing is added until everything that may fail has succeeded."""
        event, whole, found = seen.event, self.whole, self.found
        user, authority = (swap.user, None) if whole is None else on_behalf(swap.user, event.path, whole)
        trade = trade_of(swap, scene, self._pools, user, authority)
        if trade is None:
            if whole is not None:
                found.unread.append(Unread(event.program, event.name, INCOMPLETE, "fields are missing"))
            return extent
        if trade.mint is not None:
            self._mints.learn_event(event, meaning, trade.mint)
        elif whole is None and trade.pool is not None and extent == "event":
            if trade.pool != self._answered and self._awaited.takes(trade.pool):
                found.awaited.append((trade.pool, event.program_id))
                return extent
            if self._awaited.ask is not None:
                found.unread.append(Unread(event.program, event.name, UNKNOWN_POOL, trade.pool))
        if extent == "event" or trade.mint is not None:
            self.drafts.append(_Draft(len(found.facts), seen, trade, extent == "trade"))
            found.facts.append(seen)
        return "trade" if trade.mint is None else "all"

    def _token(self, seen: EventSeen, meaning: EventFacts, scene: Scene) -> Extent:
        """Add the token that the event creates, if it creates one and all its fields are known."""
        created = None
        if meaning.token is not None:
            mint, name, symbol, creator = meaning.token(seen.event.data, scene)
            if mint is not None and name is not None and symbol is not None and creator is not None:
                created = TokenCreated(seen, mint, name, symbol, creator)
        self._mints.learn_event(seen.event, meaning, None if created is None else created.mint)
        if created is None:
            return "all" if meaning.token is None else "event"
        self.found.facts.append(created)
        return "all"


def origin_of(update: LogsUpdate | TransactionUpdate, commitment: Commitment) -> Origin:
    """Return where the facts of a transaction were seen."""
    version = update.version if isinstance(update, TransactionUpdate) else None
    return Origin(update.slot, update.signature, update.source, update.feed, commitment, update.unproven, version)


def _transaction(
    update: LogsUpdate | TransactionUpdate,
    parts: int,
    origin: Origin,
    events: Sequence[DecodedEvent],
    text: TransactionText,
    program_ids: Iterable[str],
) -> TransactionSeen:
    event_id = f"{update.slot}:{update.signature}:tx:0"
    return TransactionSeen(
        event_id, origin, update, events, text.instructions, text.body, tuple(program_ids), is_cut(parts)
    )
