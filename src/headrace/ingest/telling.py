"""What there is to tell of a transaction (its events, the trades and tokens in them, itself) or an account. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.decoders.logs import TRUNCATED
from headrace.decoders.registry import Programs
from headrace.ingest.bodies import (
    TransactionText,
    account_data,
    account_frame,
    created_data,
    event_data,
    trade_data,
    transaction_data,
)
from headrace.ingest.dedupe import CUT_LOGS, INSTRUCTIONS, LOGS
from headrace.ingest.enrich import LOGS_ONLY, Context, Pools, created_of, is_told_again, trade_of
from headrace.ingest.mints import Mints
from headrace.ingest.provisional import Sent
from headrace.model.events import DecodedEvent, DecodedInstruction, Label, Publication
from headrace.model.trades import Trade
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate

CREATED_TOPIC: Final = "token_updates"
PROGRAMS_MAX: Final = 4_096


class ProgramTopics(NamedTuple):
    """The topics of a program."""

    trades: str
    events: str
    tx: str
    accounts: str


class Outbox:
    """The messages of one update; `sent` says which event each tells. `singles`: topics of one mint or account.

    `trades` are those with a known mint, each with the event that tells it.
    """

    __slots__ = ("publications", "sent", "singles", "trades")

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.sent: list[Sent] = []
        self.singles: list[str] = []
        self.trades: list[tuple[Trade, DecodedEvent]] = []

    def add(self, topic: str, event_id: str, body: bytes, label: Label | None = None) -> None:
        self.publications.append(Publication(topic, "event", body, label))
        self.sent.append((topic, event_id))

    def add_single(self, topic: str, event_id: str, body: bytes, label: Label | None = None) -> None:
        self.add(topic, event_id, body, label)
        self.singles.append(topic)


def view_of(update: LogsUpdate | TransactionUpdate) -> int:
    """What the update shows of its transaction, as bits of `dedupe`."""
    view = INSTRUCTIONS if isinstance(update, TransactionUpdate) else 0
    if update.logs is not None:
        view |= CUT_LOGS if TRUNCATED in update.logs else LOGS
    return view


class Teller:
    """Decodes and enriches what is new. Learns which mints a pool has, and what they are like, from what passes."""

    def __init__(self, programs: Programs, pools: Pools, mints: Mints) -> None:
        self.programs = programs
        self._pools, self._mints = pools, mints
        self._topics: dict[str, ProgramTopics] = {}
        self._with_events = frozenset(p.program_id for p in programs.by_id.values() if p.events)

    def decode(self, update: LogsUpdate | TransactionUpdate) -> tuple[list[DecodedEvent], list[bytes]]:
        """The transaction's events, and for each its fields as JSON."""
        events = events_of(update, self.programs)
        by_name = self.programs.by_name
        return events, [by_name[event.program].events[event.name].encode_json(event.data) for event in events]

    def tell(
        self,
        update: LogsUpdate | TransactionUpdate,
        view: int,
        events: Sequence[DecodedEvent],
        fields: Sequence[bytes],
        fresh: Sequence[bool],
        commitment: Commitment,
    ) -> Outbox:
        """The messages of the transaction; of its events those that are `fresh`."""
        outbox, text = Outbox(), TransactionText(update, commitment)
        instructions: list[DecodedInstruction] = []
        accounts: dict[tuple[int, ...], Mapping[str, str]] = {}
        mints: dict[str, str] = {}
        if isinstance(update, TransactionUpdate):
            instructions = instructions_of(update, self.programs)
            accounts = {instruction.path: instruction.accounts for instruction in instructions}
            mints = {held.account: held.mint for held in (*update.pre_token_balances, *update.post_token_balances)}
        for event, shown, new in zip(events, fields, fresh, strict=True):
            self._pools.learn_event(event)
            if new:
                context = Context(accounts.get(event.path, {}), mints) if accounts else LOGS_ONLY
                again = len(events) > 1 and is_told_again(event, events)
                self._tell_event(outbox, text, event, shown, context, is_trade=not again)
        if outbox.trades and isinstance(update, TransactionUpdate):
            self._mints.learn_balances(update.post_token_balances)
        self._tell_whole(outbox, text, update, events, instructions, truncated=view & LOGS == CUT_LOGS)
        return outbox

    def _tell_event(
        self,
        outbox: Outbox,
        text: TransactionText,
        event: DecodedEvent,
        fields: bytes,
        context: Context,
        *,
        is_trade: bool,
    ) -> None:
        topics = self._topics_of(event.program)
        event_id, head, tail = text.event(event)
        outbox.add(topics.events, event_id, head + event_data(event, fields) + tail)
        trade = trade_of(event, context, self._pools) if is_trade else None
        if trade is not None:
            body = head + trade_data(event, trade, fields) + tail
            outbox.add(topics.trades, event_id, body)
            if trade.mint is not None:
                self._mints.learn_event(event, trade.mint)
                outbox.trades.append((trade, event))
                outbox.add_single(f"trades:{trade.mint}", event_id, body)
            return
        created = created_of(event, context)
        self._mints.learn_event(event, None if created is None else created.mint)
        if created is not None:
            body = head + created_data(created) + tail
            label = text.label(f"TokenCreated {created.mint} ", event_id)
            outbox.add(CREATED_TOPIC, event_id, body, label)
            outbox.add_single(f"token:{created.mint}", event_id, body, label)

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
        """The transaction itself, for each of its programs that has events, and for the program of its feed."""
        program_ids = {event.program_id: None for event in events}  # a set that keeps its order
        program_ids.update({i.program_id: None for i in instructions if i.program_id in self._with_events})
        kind, _, feed_key = update.feed.partition(":")
        if kind == "logs":
            program_ids[feed_key] = None
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
        if account is not None:
            self._pools.learn_account(update.pubkey, account)
            self._mints.learn_account(update.pubkey, account)
            fields = self.programs.by_name[program].accounts[account.name].encode_json(account.data)
        outbox = Outbox()
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
