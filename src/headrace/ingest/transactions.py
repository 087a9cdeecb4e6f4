"""Transactions as facts: events, the trades and tokens that these are, and each transaction itself. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.decoders.logs import TRUNCATED
from headrace.decoders.registry import Programs
from headrace.ingest.awaited import AwaitedPools
from headrace.ingest.bodies import path_text
from headrace.ingest.chain_time import ChainTime
from headrace.ingest.dedupe import CUT_LOGS, INSTRUCTIONS, LOGS, Extent, Standing
from headrace.ingest.known import UNKNOWN, Mints, Pools
from headrace.ingest.trades import is_repeated, on_behalf, trade_of
from headrace.model.errors import BadInputError
from headrace.model.events import DecodedEvent, NamedInstruction
from headrace.model.facts import EventSeen, News, Origin, TokenCreated, Traded, TransactionSeen
from headrace.model.trades import Trade
from headrace.model.updates import Commitment, LogsUpdate, TransactionUpdate
from headrace.programs.meanings import EventFacts, Scene, Swap
from headrace.programs.register import EVENTS

UNREADABLE: Final = (
    BadInputError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    msgspec.MsgspecError,
)
"""Errors by which bytes show that they fit no expectation."""

INCOMPLETE: Final = "incomplete"
UNKNOWN_POOL: Final = "unknown_pool"
RECENT_MAX: Final = 256
"""Transactions whose decoded form is kept for further feeds; these come within moments of the first."""

_LOGS_ONLY: Final = Scene()


class Unread(NamedTuple):
    """An event whose meaning could not be read, and why: the name of an error, or `incomplete` for a lack of fields."""

    program: str
    event: str
    reason: str
    detail: str


class Decoded(NamedTuple):
    """The events of a transaction, and for each its fields as JSON; `unread` are those that can't be encoded."""

    events: Sequence[DecodedEvent]
    fields: Sequence[bytes]
    unread: Sequence[Unread]


class Found:
    """News in one view of a transaction.

    `extents` says of each event of the view how much of it is known by now. `awaited` are pools, each with its program,
    whose mints are to be asked for first.
    """

    __slots__ = ("awaited", "extents", "facts", "unread")

    def __init__(self) -> None:
        self.facts: list[News] = []
        self.extents: list[Extent] = []
        self.unread: list[Unread] = []
        self.awaited: list[tuple[str, str]] = []


class _Draft(NamedTuple):
    """A trade whose place among the facts is kept until all that the transaction says of mints is learned."""

    at: int
    seen: EventSeen
    trade: Trade
    again: bool


def visible_parts(update: LogsUpdate | TransactionUpdate) -> int:
    """Return what the update shows of its transaction, as bits of `dedupe`."""
    parts = INSTRUCTIONS if isinstance(update, TransactionUpdate) else 0
    if update.logs is not None:
        parts |= CUT_LOGS if TRUNCATED in update.logs else LOGS
    return parts


def feed_key(feed: str) -> str:
    """Return the key of a feed of transactions; empty for other feeds."""
    kind, _, key = feed.partition(":")
    return key if kind in ("logs", "transactions") else ""


class TransactionReader:
    """Decodes and enriches what is new. Learns which mints a pool has, and what they are like, from what passes."""

    def __init__(self, programs: Programs, pools: Pools, mints: Mints, awaited: AwaitedPools) -> None:
        self.programs, self._awaited = programs, awaited
        self._pools, self._mints = pools, mints
        self._times = ChainTime()
        self._with_events = frozenset(p.program_id for p in programs.by_id.values() if p.events)
        self._feed, self._several = "", False
        self._recent: dict[tuple[int, str, int], TransactionSeen] = {}

    def decode(self, update: LogsUpdate | TransactionUpdate) -> Decoded:
        """Decode the transaction's events; those that can't be encoded are left out."""
        events, by_name = events_of(update, self.programs), self.programs.by_name
        try:
            fields = [by_name[each.program].events[each.name].encode_json(each.data) for each in events]
        except UNREADABLE:
            return self._encode_each(events)
        return Decoded(events, fields, ())

    def _encode_each(self, events: Sequence[DecodedEvent]) -> Decoded:
        read: list[DecodedEvent] = []
        fields: list[bytes] = []
        unread: list[Unread] = []
        for event in events:
            try:
                fields.append(self.programs.by_name[event.program].events[event.name].encode_json(event.data))
                read.append(event)
            except UNREADABLE as error:
                unread.append(_unread(event, error))
        return Decoded(read, fields, unread)

    def facts(
        self,
        update: LogsUpdate | TransactionUpdate,
        parts: int,
        decoded: Decoded,
        standings: Sequence[Standing],
        commitment: Commitment,
        answered: str | None = None,
    ) -> Found:
        """Return the facts of the transaction; of its events what `standings` do not have as known.

        `answered` is a pool that this view waited for: all facts of the view but that pool's trades are known.
        """
        whole = update if isinstance(update, TransactionUpdate) else None
        reading = _Reading(self, update, whole, commitment, answered)
        instructions: Sequence[NamedInstruction] = ()
        if whole is not None:
            instructions = instructions_of(whole, self.programs)
            reading.instructions = {instruction.path: instruction for instruction in instructions}
            reading.mints = {
                held.account: held.mint for held in (*whole.pre_token_balances, *whole.post_token_balances)
            }
        events, found = decoded.events, reading.found
        for event, fields, standing in zip(events, decoded.fields, standings, strict=True):
            extent = standing.extent
            found.extents.append(extent if extent == "all" else reading.event(event, fields, standing, events))
        if reading.drafts:
            self._complete(reading)
        if answered is None:
            found.facts.append(self._whole(update, parts, reading.origin, events, instructions))
        return found

    def _complete(self, reading: "_Reading") -> None:
        """Put the trades among the facts, with what is known of their mints."""
        update, facts = reading.update, reading.found.facts
        if reading.whole is not None and any(draft.trade.mint is not None for draft in reading.drafts):
            self._mints.learn_balances(reading.whole.post_token_balances)
        for at, seen, trade, again in reading.drafts:
            named = trade.mint is not None and trade.quote_mint is not None
            base = UNKNOWN if trade.mint is None else self._mints.of(trade.mint)
            quote = UNKNOWN if trade.quote_mint is None else self._mints.of(trade.quote_mint)
            time_s = self._times.of(update, seen.event.data, learn=named)
            facts[at] = Traded(seen, trade, time_s, base, quote, again)

    def _whole(
        self,
        update: LogsUpdate | TransactionUpdate,
        parts: int,
        origin: Origin,
        events: Sequence[DecodedEvent],
        instructions: Sequence[NamedInstruction],
    ) -> TransactionSeen:
        """Return the transaction itself, for each of its programs that has events, and for the key of its feed."""
        program_ids = self._programs_of(events, instructions)
        if key := feed_key(update.feed):
            program_ids[key] = None
        whole = _transaction(update, parts, origin, events, instructions, program_ids)
        if update.feed != self._feed:
            self._several, self._feed = self._several or self._feed != "", update.feed
        if self._several:
            self._remember((update.slot, update.signature, parts), whole)
        return whole

    def _remember(self, key: tuple[int, str, int], whole: TransactionSeen) -> None:
        """Keep what was decoded for a while: where several feeds are followed, others may bring the same."""
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[key] = whole

    def for_feed(
        self, update: LogsUpdate | TransactionUpdate, parts: int, commitment: Commitment
    ) -> TransactionSeen | None:
        """Return the transaction for the key of its feed alone; None if it is known for that as one of its programs."""
        self._several = True
        key = feed_key(update.feed)
        if not key:
            return None
        recent = self._recent.get((update.slot, update.signature, parts))
        if recent is None or recent.update.logs != update.logs:
            events: Sequence[DecodedEvent] = events_of(update, self.programs)
            instructions: Sequence[NamedInstruction] = ()
            if isinstance(update, TransactionUpdate):
                instructions = instructions_of(update, self.programs)
        else:
            events, instructions = recent.events, recent.instructions
        if key in self._programs_of(events, instructions):
            return None
        return _transaction(update, parts, _origin(update, commitment), events, instructions, (key,))

    def _programs_of(self, events: Iterable[DecodedEvent], instructions: Iterable[NamedInstruction]) -> dict[str, None]:
        """Return a set that keeps its order."""
        program_ids = {event.program_id: None for event in events}
        program_ids.update({i.program_id: None for i in instructions if i.program_id in self._with_events})
        return program_ids


class _Reading:
    """One view of a transaction while its events are read."""

    __slots__ = (
        "_answered", "_awaited", "_mints", "_pools", "_prefix", "drafts", "found", "instructions", "mints", "origin",
        "update", "whole",
    )  # fmt: skip

    def __init__(
        self,
        reader: TransactionReader,
        update: LogsUpdate | TransactionUpdate,
        whole: TransactionUpdate | None,
        commitment: Commitment,
        answered: str | None,
    ) -> None:
        self._pools, self._mints, self._awaited = reader._pools, reader._mints, reader._awaited
        self.update, self.whole, self._answered = update, whole, answered
        self.origin = _origin(update, commitment)
        self._prefix = f"{update.slot}:{update.signature}:"
        self.instructions: Mapping[tuple[int, ...], NamedInstruction] = {}
        self.mints: Mapping[str, str] = {}
        self.found = Found()
        self.drafts: list[_Draft] = []

    def event(self, event: DecodedEvent, fields: bytes, standing: Standing, events: Sequence[DecodedEvent]) -> Extent:
        """Add what there is of the event beyond its extent; return how much of it is known then.

        An event whose meaning can't be read is a fact all the same.
        """
        (path, ordinal), extent = standing
        seen = EventSeen(f"{self._prefix}{path_text(path)[0]}:{ordinal}", self.origin, event, fields, path)
        if extent == "nothing":
            self.found.facts.append(seen)
            extent = "event"
        meaning = EVENTS.get((event.program, event.name))
        if meaning is None:
            return "all"
        try:
            self._pools.learn_event(event, meaning)
            if meaning.trade is None or (len(events) > 1 and is_repeated(event, meaning.repeats, events)):
                return self._token(seen, meaning)
            swap = meaning.trade(event.data, self._scene(event))
            return self._token(seen, meaning) if swap is None else self._swap(seen, meaning, swap, extent)
        except UNREADABLE as error:
            self.found.unread.append(_unread(event, error))
            return extent

    def _scene(self, event: DecodedEvent) -> Scene:
        if not self.instructions:
            return _LOGS_ONLY
        emitter = self.instructions.get(event.path)
        return Scene({} if emitter is None else emitter.accounts, self.mints)

    def _swap(self, seen: EventSeen, meaning: EventFacts, swap: Swap, extent: Extent) -> Extent:
        """Add the trade. Nothing is added before all that may fail has succeeded."""
        event, whole, found = seen.event, self.whole, self.found
        user, authority = (swap.user, None) if whole is None else on_behalf(swap.user, event.path, whole)
        trade = trade_of(swap, self._scene(event), self._pools, user, authority)
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

    def _token(self, seen: EventSeen, meaning: EventFacts) -> Extent:
        """Add the token that the event creates, if it creates one of which all is known."""
        created = None
        if meaning.token is not None:
            mint, name, symbol, creator = meaning.token(seen.event.data, self._scene(seen.event))
            if mint is not None and name is not None and symbol is not None and creator is not None:
                created = TokenCreated(seen, mint, name, symbol, creator)
        self._mints.learn_event(seen.event, meaning, None if created is None else created.mint)
        if created is None:
            return "all" if meaning.token is None else "event"
        self.found.facts.append(created)
        return "all"


def _origin(update: LogsUpdate | TransactionUpdate, commitment: Commitment) -> Origin:
    version = update.version if isinstance(update, TransactionUpdate) else None
    return Origin(update.slot, update.signature, update.source, update.feed, commitment, update.unproven, version)


def _transaction(
    update: LogsUpdate | TransactionUpdate,
    parts: int,
    origin: Origin,
    events: Sequence[DecodedEvent],
    instructions: Sequence[NamedInstruction],
    program_ids: Iterable[str],
) -> TransactionSeen:
    event_id, truncated = f"{update.slot}:{update.signature}:tx:0", parts & LOGS == CUT_LOGS
    return TransactionSeen(event_id, origin, update, events, instructions, tuple(program_ids), truncated)


def _unread(event: DecodedEvent, error: Exception) -> Unread:
    return Unread(event.program, event.name, type(error).__name__, str(error)[:200])
