"""What there is to tell of a transaction (its events, the trades and tokens in them, itself) or an account. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.decoders.logs import TRUNCATED
from headrace.decoders.registry import Programs
from headrace.ingest.awaited import AwaitedPools
from headrace.ingest.bodies import (
    Frame,
    TransactionText,
    account_data,
    account_frame,
    created_data,
    event_data,
    trade_data,
    transaction_data,
)
from headrace.ingest.dedupe import CUT_LOGS, INSTRUCTIONS, LOGS, Extent, Standing
from headrace.ingest.enrich import LOGS_ONLY, Pools, created_of, is_creation, is_repeated, swap_of, trade_of
from headrace.ingest.mints import Mints
from headrace.ingest.provisional import Sent
from headrace.ingest.signers import on_behalf
from headrace.model.errors import BadInputError
from headrace.model.events import DecodedEvent, DecodedInstruction, Label, Publication
from headrace.model.trades import Trade
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate
from headrace.programs.meanings import Scene, Swap

CREATED_TOPIC: Final = "token_updates"
PROGRAMS_MAX: Final = 4_096

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
"""How bytes that fit no expectation show themselves to who reads them."""


class ProgramTopics(NamedTuple):
    """The topics of a program."""

    trades: str
    events: str
    tx: str
    accounts: str


class Unread(NamedTuple):
    """An event whose meaning could not be read, and why: the name of an error, or `incomplete` for a lack of fields."""

    program: str
    event: str
    reason: str
    detail: str


class Outbox:
    """The messages of one update; `sent` says which event each is of. `singles`: topics of one mint or account.

    `trades` are those that now have a mint for the first time, each with its event. `extents` says of each event of the
    update how much of it is published by now. `awaited` are pools, each with its program, whose mints are to be asked
    for first.
    """

    __slots__ = ("awaited", "extents", "publications", "sent", "singles", "trades", "unread")

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.sent: list[Sent] = []
        self.singles: list[str] = []
        self.trades: list[tuple[Trade, DecodedEvent]] = []
        self.extents: list[Extent] = []
        self.unread: list[Unread] = []
        self.awaited: list[tuple[str, str]] = []

    def add(self, topic: str, event_id: str, body: bytes, label: Label | None = None) -> None:
        self.publications.append(Publication(topic, "event", body, label))
        self.sent.append((topic, event_id))

    def add_single(self, topic: str, event_id: str, body: bytes, label: Label | None = None) -> None:
        self.add(topic, event_id, body, label)
        self.singles.append(topic)


INCOMPLETE: Final = "incomplete"
UNKNOWN_POOL: Final = "unknown_pool"


def _unread(event: DecodedEvent, error: Exception) -> Unread:
    return Unread(event.program, event.name, type(error).__name__, str(error)[:200])


def _key_of(feed: str) -> str:
    """The key of a feed of transactions; empty for other feeds."""
    kind, _, key = feed.partition(":")
    return key if kind in ("logs", "transactions") else ""


def view_of(update: LogsUpdate | TransactionUpdate) -> int:
    """What the update shows of its transaction, as bits of `dedupe`."""
    view = INSTRUCTIONS if isinstance(update, TransactionUpdate) else 0
    if update.logs is not None:
        view |= CUT_LOGS if TRUNCATED in update.logs else LOGS
    return view


class _Part(NamedTuple):
    """An event, its fields as JSON, what its transaction adds to it, and the frame in which it is published."""

    event: DecodedEvent
    fields: bytes
    scene: Scene
    frame: Frame
    is_trade: bool


class Teller:
    """Decodes and enriches what is new. Learns which mints a pool has, and what they are like, from what passes."""

    def __init__(self, programs: Programs, pools: Pools, mints: Mints, awaited: AwaitedPools) -> None:
        self.programs, self._awaited = programs, awaited
        self._pools, self._mints = pools, mints
        self._topics: dict[str, ProgramTopics] = {}
        self._with_events = frozenset(p.program_id for p in programs.by_id.values() if p.events)

    def decode(self, update: LogsUpdate | TransactionUpdate) -> tuple[list[DecodedEvent], list[bytes], list[Unread]]:
        """The transaction's events, and for each its fields as JSON; those that can't be encoded are left out."""
        events, by_name = events_of(update, self.programs), self.programs.by_name
        try:
            return events, [by_name[each.program].events[each.name].encode_json(each.data) for each in events], []
        except UNREADABLE:
            return self._encode_each(events)

    def _encode_each(self, events: Sequence[DecodedEvent]) -> tuple[list[DecodedEvent], list[bytes], list[Unread]]:
        read: list[DecodedEvent] = []
        fields: list[bytes] = []
        unread: list[Unread] = []
        for event in events:
            try:
                fields.append(self.programs.by_name[event.program].events[event.name].encode_json(event.data))
                read.append(event)
            except UNREADABLE as error:
                unread.append(_unread(event, error))
        return read, fields, unread

    def tell(
        self,
        update: LogsUpdate | TransactionUpdate,
        view: int,
        events: Sequence[DecodedEvent],
        fields: Sequence[bytes],
        standings: Sequence[Standing],
        commitment: Commitment,
        answered: str | None = None,
    ) -> Outbox:
        """The messages of the transaction; of its events what `standings` do not have as published.

        `answered` is a pool that this view waited for: the view was published before, but for that pool's trades.
        """
        outbox, text = Outbox(), TransactionText(update, commitment)
        instructions: list[DecodedInstruction] = []
        accounts: dict[tuple[int, ...], Mapping[str, str]] = {}
        mints: dict[str, str] = {}
        whole = update if isinstance(update, TransactionUpdate) else None
        if whole is not None:
            instructions = instructions_of(whole, self.programs)
            accounts = {instruction.path: instruction.accounts for instruction in instructions}
            mints = {held.account: held.mint for held in (*whole.pre_token_balances, *whole.post_token_balances)}
        for event, shown, standing in zip(events, fields, standings, strict=True):
            extent = standing.extent
            if extent != "all":
                scene = Scene(accounts.get(event.path, {}), mints) if accounts else LOGS_ONLY
                again = len(events) > 1 and is_repeated(event, events)
                part = _Part(event, shown, scene, text.event(event, standing.place), not again)
                extent = self._tell_event(outbox, text, whole, part, extent, answered)
            outbox.extents.append(extent)
        if outbox.trades and whole is not None:
            self._mints.learn_balances(whole.post_token_balances)
        if answered is None:
            self._tell_whole(outbox, text, update, events, instructions, truncated=view & LOGS == CUT_LOGS)
        return outbox

    def _tell_event(
        self,
        outbox: Outbox,
        text: TransactionText,
        whole: TransactionUpdate | None,
        part: _Part,
        extent: Extent,
        answered: str | None,
    ) -> Extent:
        """Add what is published of the event beyond `extent`; gives how much of it is published then.

        An event whose meaning can't be read is published all the same.
        """
        event = part.event
        if extent == "nothing":
            event_id, head, tail = part.frame
            outbox.add(self._topics_of(event.program).events, event_id, head + event_data(event, part.fields) + tail)
            extent = "event"
        try:
            self._pools.learn_event(event)
            swap = swap_of(event, part.scene) if part.is_trade else None
            if swap is None:
                return self._tell_created(outbox, text, part)
            return self._tell_swap(outbox, whole, part, swap, extent, answered)
        except UNREADABLE as error:
            outbox.unread.append(_unread(event, error))
            return extent

    def _tell_swap(
        self,
        outbox: Outbox,
        whole: TransactionUpdate | None,
        part: _Part,
        swap: Swap,
        extent: Extent,
        answered: str | None,
    ) -> Extent:
        """Nothing is added before all that may fail has succeeded."""
        event, (event_id, head, tail) = part.event, part.frame
        user, authority = (swap.user, None) if whole is None else on_behalf(swap.user, event.path, whole)
        trade = trade_of(swap, part.scene, self._pools, user, authority)
        if trade is None:
            if whole is not None:
                outbox.unread.append(Unread(event.program, event.name, INCOMPLETE, "fields are missing"))
            return extent
        if trade.mint is not None:
            self._mints.learn_event(event, trade.mint)
        elif whole is None and trade.pool is not None and extent == "event":
            if trade.pool != answered and self._awaited.takes(trade.pool):
                outbox.awaited.append((trade.pool, event.program_id))
                return extent
            if self._awaited.ask is not None:
                outbox.unread.append(Unread(event.program, event.name, UNKNOWN_POOL, trade.pool))
        body = head + trade_data(event, trade, part.fields) + tail
        if extent == "event":
            outbox.add(self._topics_of(event.program).trades, event_id, body)
        if trade.mint is None:
            return "trade"
        outbox.trades.append((trade, event))
        outbox.add_single(f"trades:{trade.mint}", event_id, body)
        return "all"

    def _tell_created(self, outbox: Outbox, text: TransactionText, part: _Part) -> Extent:
        created = created_of(part.event, part.scene)
        self._mints.learn_event(part.event, None if created is None else created.mint)
        if created is None:
            return "event" if is_creation(part.event) else "all"
        event_id, head, tail = part.frame
        body = head + created_data(created) + tail
        label = text.label(f"TokenCreated {created.mint} ", event_id)
        outbox.add(CREATED_TOPIC, event_id, body, label)
        outbox.add_single(f"token:{created.mint}", event_id, body, label)
        return "all"

    def _tell_whole(
        self,
        outbox: Outbox,
        text: TransactionText,
        update: LogsUpdate | TransactionUpdate,
        events: Sequence[DecodedEvent],
        instructions: Sequence[DecodedInstruction],
        *,
        truncated: bool,
    ) -> None:
        """The transaction itself, for each of its programs that has events, and for the key of its feed."""
        program_ids = self._programs_of(events, instructions)
        if feed_key := _key_of(update.feed):
            program_ids[feed_key] = None
        self._tell_for(program_ids, outbox, text, update, events, instructions, truncated=truncated)

    def tell_feed(self, update: LogsUpdate | TransactionUpdate, view: int, commitment: Commitment) -> Outbox:
        """The transaction for the key of its feed alone, unless it was published there for its programs."""
        outbox, text = Outbox(), TransactionText(update, commitment)
        feed_key = _key_of(update.feed)
        events = events_of(update, self.programs)
        instructions = instructions_of(update, self.programs) if isinstance(update, TransactionUpdate) else []
        if feed_key and feed_key not in self._programs_of(events, instructions):
            truncated = view & LOGS == CUT_LOGS
            self._tell_for({feed_key: None}, outbox, text, update, events, instructions, truncated=truncated)
        return outbox

    def _programs_of(
        self, events: Sequence[DecodedEvent], instructions: Sequence[DecodedInstruction]
    ) -> dict[str, None]:
        """A set that keeps its order."""
        program_ids = {event.program_id: None for event in events}
        program_ids.update({i.program_id: None for i in instructions if i.program_id in self._with_events})
        return program_ids

    def _tell_for(
        self,
        program_ids: Mapping[str, None],
        outbox: Outbox,
        text: TransactionText,
        update: LogsUpdate | TransactionUpdate,
        events: Sequence[DecodedEvent],
        instructions: Sequence[DecodedInstruction],
        *,
        truncated: bool,
    ) -> None:
        event_id, head, tail = text.whole(truncated=truncated)
        shared = b""
        for program_id in program_ids:
            topic = self._topics_of(self.programs.name_of(program_id)).tx
            if program_id in self.programs.by_id:
                shared = shared or head + transaction_data(update, text, events, instructions, None) + tail
                outbox.add(topic, event_id, shared)
            else:
                outbox.add(
                    topic, event_id, head + transaction_data(update, text, events, instructions, program_id) + tail
                )

    def tell_account(self, update: AccountUpdate, version: int, commitment: Commitment) -> Outbox:
        """The messages of an account's `version`-th content in its slot."""
        account, fields = self.programs.account(update.owner, update.data), b"null"
        program = self.programs.name_of(update.owner)
        outbox = Outbox()
        if account is not None:
            try:
                self._pools.learn_account(update.pubkey, account)
                self._mints.learn_account(update.pubkey, account)
            except UNREADABLE as error:
                outbox.unread.append(Unread(account.program, account.name, type(error).__name__, str(error)[:200]))
            fields = self.programs.by_name[program].accounts[account.name].encode_json(account.data)
        event_id, head, tail = account_frame(update, commitment, version)
        body = head + account_data(update, program, account, fields) + tail
        label = Label(update.pubkey, event_id, update.slot, commitment != "processed")
        outbox.add(self._topics_of(program).accounts, event_id, body, label)
        outbox.add_single(f"account:{update.pubkey}", event_id, body, label)
        return outbox

    def _topics_of(self, program: str) -> ProgramTopics:
        """The topics of a program, by name or id; made once."""
        topics = self._topics.get(program)
        if topics is None:
            if len(self._topics) >= PROGRAMS_MAX:
                self._topics.clear()
            topics = self._topics[program] = ProgramTopics(
                f"trades:{program}", f"events:{program}", f"tx:{program}", f"accounts:{program}"
            )
        return topics
