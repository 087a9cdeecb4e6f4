"""What there is to tell of a transaction (its events, the trades and tokens in them, itself) or an account. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.decoders.logs import TRUNCATED
from headrace.decoders.registry import Programs
from headrace.ingest.bodies import (
    Body,
    TransactionBodies,
    account_body,
    created_data,
    event_data,
    trade_data,
    transaction_data,
)
from headrace.ingest.dedupe import CUT_LOGS, INSTRUCTIONS, LOGS
from headrace.ingest.enrich import LOGS_ONLY, Context, Pools, created_of, is_told_again, trade_of
from headrace.model.events import DecodedEvent, DecodedInstruction
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate

PROGRAMS_MAX: Final = 4_096
CREATED_TOPIC: Final = "token_updates"


class ProgramTopics(NamedTuple):
    """The topics of a program."""

    trades: str
    events: str
    tx: str
    accounts: str


class Told(NamedTuple):
    """One message: where it goes and what it says. `single`: a topic of one mint or account, not of a program."""

    topic: str
    body: Body
    single: bool = False


def view_of(update: LogsUpdate | TransactionUpdate) -> int:
    """What the update shows of its transaction, as bits of `dedupe`."""
    view = INSTRUCTIONS if isinstance(update, TransactionUpdate) else 0
    if update.logs is not None:
        view |= CUT_LOGS if TRUNCATED in update.logs else LOGS
    return view


class Teller:
    """Decodes and enriches transactions. Learns which mints a pool has from what passes."""

    def __init__(self, programs: Programs, pools: Pools) -> None:
        self.programs = programs
        self._pools = pools
        self._topics: dict[str, ProgramTopics] = {}
        self._with_events = frozenset(p.program_id for p in programs.by_id.values() if p.events)

    def topics(self, program: str) -> ProgramTopics:
        """The topics of a program, by name or id; made once."""
        topics = self._topics.get(program)
        if topics is None:
            if len(self._topics) >= PROGRAMS_MAX:
                self._topics.clear()
            topics = self._topics[program] = ProgramTopics(
                f"trades:{program}", f"events:{program}", f"tx:{program}", f"accounts:{program}"
            )
        return topics

    def decode(self, update: LogsUpdate | TransactionUpdate) -> tuple[list[DecodedEvent], list[bytes]]:
        """The transaction's events, and for each its fields as JSON."""
        events = events_of(update, self.programs)
        by_name = self.programs.by_name
        return events, [by_name[event.program].events[event.name].encode_json(event.data) for event in events]

    def tell(
        self,
        update: LogsUpdate | TransactionUpdate,
        events: Sequence[DecodedEvent],
        fields: Sequence[bytes],
        fresh: Sequence[bool],
        commitment: Commitment,
    ) -> list[Told]:
        """The messages of the transaction; of its events those that are `fresh`."""
        bodies = TransactionBodies(update, commitment)
        instructions: list[DecodedInstruction] = []
        accounts: dict[tuple[int, ...], Mapping[str, str]] = {}
        mints: dict[str, str] = {}
        if isinstance(update, TransactionUpdate):
            instructions = instructions_of(update, self.programs)
            accounts = {instruction.path: instruction.accounts for instruction in instructions}
            mints = {held.account: held.mint for held in (*update.pre_token_balances, *update.post_token_balances)}
        told: list[Told] = []
        for event, text, new in zip(events, fields, fresh, strict=True):
            self._pools.learn_event(event)
            if new:
                context = Context(accounts.get(event.path, {}), mints) if accounts else LOGS_ONLY
                again = is_told_again(event, events)
                told += self._tell_event(event, text, context, bodies, trade=not again)
        told += self._tell_transaction(update, events, instructions, bodies)
        return told

    def tell_account(self, update: AccountUpdate, version: int, commitment: Commitment) -> list[Told]:
        """The messages of an account's `version`-th content in its slot."""
        account, fields = self.programs.account(update.owner, update.data), b"null"
        program = self.programs.name_of(update.owner)
        if account is not None:
            self._pools.learn_account(update.pubkey, account)
            fields = self.programs.by_name[program].accounts[account.name].encode_json(account.data)
        body = account_body(update, commitment, version, program, account, fields)
        return [Told(self.topics(program).accounts, body), Told(f"account:{update.pubkey}", body, single=True)]

    def _tell_event(
        self, event: DecodedEvent, fields: bytes, context: Context, bodies: TransactionBodies, *, trade: bool
    ) -> Iterable[Told]:
        topics = self.topics(event.program)
        yield Told(topics.events, bodies.event(event, event_data(event, fields)))
        traded = trade_of(event, context, self._pools) if trade else None
        if traded is not None:
            body = bodies.event(event, trade_data(event, traded, fields))
            yield Told(topics.trades, body)
            if traded.mint is not None:
                yield Told(f"trades:{traded.mint}", body, single=True)
        created = created_of(event, context)
        if created is not None:
            body = bodies.event(event, created_data(created))
            yield Told(CREATED_TOPIC, body)
            yield Told(f"token:{created.mint}", body, single=True)

    def _tell_transaction(
        self,
        update: LogsUpdate | TransactionUpdate,
        events: Sequence[DecodedEvent],
        instructions: Sequence[DecodedInstruction],
        bodies: TransactionBodies,
    ) -> Iterable[Told]:
        """One message for each program of the transaction that has events, and for the program of its feed."""
        program_ids = dict.fromkeys(event.program_id for event in events)
        program_ids.update((i.program_id, None) for i in instructions if i.program_id in self._with_events)
        kind, _, feed_key = update.feed.partition(":")
        if kind == "logs":
            program_ids[feed_key] = None
        truncated = update.logs is not None and TRUNCATED in update.logs
        named = [{"program": i.program, "name": i.name, "path": i.path} for i in instructions]
        shared: Body | None = None
        for program_id in program_ids:
            topic = self.topics(self.programs.name_of(program_id)).tx
            if program_id in self.programs.by_id:
                shared = shared or bodies.whole(
                    transaction_data(update, events, named, logs=False), truncated=truncated
                )
                yield Told(topic, shared)
            else:
                raw = [
                    _raw(i) if i.program_id == program_id else name for i, name in zip(instructions, named, strict=True)
                ]
                yield Told(topic, bodies.whole(transaction_data(update, events, raw, logs=True), truncated=truncated))


def _raw(instruction: DecodedInstruction) -> dict[str, Any]:
    """An instruction of a program without an IDL, as it is."""
    return {
        "program": instruction.program,
        "name": instruction.name,
        "path": instruction.path,
        "accounts": list(instruction.accounts.values()),
        **instruction.args,
    }
